package data

import "slices"

// AUC is the area under the ROC curve: the probability that, of a sample with label 1 and one with label 0, the first
// has the higher score, ties counting half (Fawcett, "An introduction to ROC analysis", 2006). It is exact: the scores
// are sorted. Labels above 0 are positive; where all are of one kind it is 0.5.
func AUC(scores []float32, labels []int32) float64 {
	order := make([]int32, len(scores))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		switch x, y := scores[a], scores[b]; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	var below, twice, positives uint64 // negatives passed; twice the pairs that are in order
	for i := 0; i < len(order); {
		j, p := i, uint64(0)
		for ; j < len(order) && scores[order[j]] == scores[order[i]]; j++ {
			if labels[order[j]] > 0 {
				p++
			}
		}
		n := uint64(j-i) - p
		twice += p * (2*below + n)
		below += n
		positives += p
		i = max(j, i+1) // a score that is no number equals nothing
	}
	if below == 0 || positives == 0 {
		return 0.5
	}
	return float64(twice) / 2 / float64(below) / float64(positives)
}
