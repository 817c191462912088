// Tables makes the two small files of data that examples/logistic.yaml and examples/mlp.yaml train on, the same bytes
// every time. What is to be learnt is planted here, so it is known how well a model can do.
//
//	go run ./examples/tables        # writes examples/tables/spam.libsvm.gz and examples/tables/customers.csv
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

func main() {
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if _, err := z.Write(spam()); err != nil {
		log.Fatal(err)
	}
	if err := z.Close(); err != nil {
		log.Fatal(err)
	}
	for name, content := range map[string][]byte{"spam.libsvm.gz": packed.Bytes(), "customers.csv": customers()} {
		if err := os.WriteFile(filepath.Join("examples", "tables", name), content, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// spam is letters as sets of words: each line is a label, 1 for spam or -1, and the numbers of the words in it. Of 400 words
// the low numbers are common and the high ones rare. 100 of them, spread over all, are four times as frequent in letters
// that are spam, and 100 others in letters that are not. Of 100 letters 6 have the wrong label.
func spam() []byte {
	const letters, words, length = 3000, 400, 20
	r := rand.New(rand.NewPCG(1, words))
	tilt := make([]int, words) // of a word: 1 more in spam, -1 less
	for i, w := range r.Perm(words)[:words/2] {
		tilt[w] = 1 - 2*(i%2)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "# made by examples/tables: label, then word:1 for each word\n")
	for range letters {
		label := 1 - 2*r.IntN(2)
		seen := map[int]bool{}
		for len(seen) < length {
			w := int(float64(words) * r.Float64() * r.Float64())
			if tilt[w]*label >= 0 || r.IntN(4) == 0 {
				seen[w+1] = true
			}
		}
		if r.IntN(100) < 6 {
			label = -label
		}
		fmt.Fprintf(&out, "%+d", label)
		for _, w := range sorted(seen) {
			fmt.Fprintf(&out, " %d:1", w)
		}
		out.WriteByte('\n')
	}
	return out.Bytes()
}

func sorted(set map[int]bool) []int {
	var list []int
	for w := range set {
		list = append(list, w)
	}
	slices.Sort(list)
	return list
}

// customers is a table of a telephone company's customers and whether they left: a column of numbers that number the rows,
// names that mean nothing, categories in quotes, numbers with decimals, missing values. Customers leave who are new
// and not bound by a contract, who call for help often although they are old customers, or who pay much
// for little use: no single column tells. Of 100 rows 4 are wrong.
func customers() []byte {
	const rows = 1800
	r := rand.New(rand.NewPCG(2, rows))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var out bytes.Buffer
	out.WriteString("id,name,town,contract,months,calls for help,minutes,monthly bill,left\n")
	for i := range rows {
		town := pick(`"Springfield, IL"`, `"Springfield, OH"`, "Salem", "Fairview", `Saint "Lucas"`)
		if town == `Saint "Lucas"` {
			town = `"Saint ""Lucas"""`
		}
		contract := pick("none", "none", "one year", "two years", "two years")
		months, calls, minutes := 1+r.IntN(72), r.IntN(10), 20+r.IntN(980)
		bill := 900 + r.IntN(8100) // cents
		left := contract == "none" && months < 30
		left = left || calls > 6 && months > 40
		left = left || contract != "two years" && bill > 6500 && minutes < 350
		if r.IntN(100) < 4 {
			left = !left
		}
		shown := fmt.Sprint(minutes)
		if r.IntN(25) == 0 {
			shown = pick("", "NA", "?")
		}
		price := fmt.Sprintf("%d.%02d", bill/100, bill%100)
		fmt.Fprintf(&out, "%d,%s%d,%s,%s,%d,%d,%s,%s,%s\n", i+1, pick("Kim", "Lee", "Ann", "Bo"), r.IntN(1000000),
			town, contract, months, calls, shown, price, map[bool]string{true: "yes", false: "no"}[left])
	}
	return out.Bytes()
}
