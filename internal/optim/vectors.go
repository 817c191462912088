package optim

// vectors are update loops in assembly, over n elements, n a positive multiple of lanes. They give the same bits as the
// loops in Go, which do the rest. A destination is its source or does not overlap it.
type vectors struct {
	name  string
	lanes int // 0: there is none

	plainDecay    func(dw, w, grad *float32, n int, lr, decay float32)
	momentum      func(dw, dm, w, grad, m *float32, n int, lr, momentum float32)
	momentumDecay func(dw, dm, w, grad, m *float32, n int, lr, momentum, decay float32)
	adam          func(dw, dm, dv, w, grad, m, v *float32, n int, keep1, beta2, keep2, root, eps, factor float32)
	adamDecay     func(dw, dm, dv, w, grad, m, v *float32, n int, keep1, beta2, keep2, root, eps, factor, decay float32)
}

// whole is how many of n elements the assembly takes.
func (k *vectors) whole(n int) int {
	if k.lanes == 0 {
		return 0
	}
	return n - n%k.lanes
}

// updatePlain does the elements that it can, and says how many those are.
func (k *vectors) updatePlain(dw, w, g []float32, lr, decay float32) int {
	n := k.whole(len(w))
	if n > 0 {
		k.plainDecay(&dw[0], &w[0], &g[0], n, lr, decay)
	}
	return n
}

// updateMomentum does the elements that it can, and says how many those are.
func (k *vectors) updateMomentum(dw, dm, w, g, m []float32, lr, momentum, decay float32) int {
	n := k.whole(len(w))
	switch {
	case n == 0:
	case decay == 0:
		k.momentum(&dw[0], &dm[0], &w[0], &g[0], &m[0], n, lr, momentum)
	default:
		k.momentumDecay(&dw[0], &dm[0], &w[0], &g[0], &m[0], n, lr, momentum, decay)
	}
	return n
}

// updateAdam does the elements that it can, and says how many those are.
func (k *vectors) updateAdam(dw, dm, dv, w, g, m, v []float32, f adamFactors) int {
	n := k.whole(len(w))
	switch {
	case n == 0:
	case f.decay == 0:
		k.adam(&dw[0], &dm[0], &dv[0], &w[0], &g[0], &m[0], &v[0], n, f.keep1, f.beta2, f.keep2, f.root, f.eps, f.factor)
	default:
		k.adamDecay(&dw[0], &dm[0], &dv[0], &w[0], &g[0], &m[0], &v[0], n, f.keep1, f.beta2, f.keep2, f.root, f.eps, f.factor, f.decay)
	}
	return n
}
