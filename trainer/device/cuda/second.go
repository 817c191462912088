package cuda

// How a function gets into the end of a product (bias and GELU, say): Apply and ApplyBackward look at the call before theirs. If that is a product, or what
// ends one, still kept back, and makes just what they read, it makes their result besides, while it has each element in a register; and
// what was the product's result is written all the same, for a function's gradient needs it. The bits are those of the kernel by itself.

// second is a result that a product has besides.
type second struct {
	to, before pointer
	f          int64
}

// joins has the call before this one make a function y of its n elements x besides, or with of the gradient of it. It tells whether it could.
func (s *stream) joins(y, x, of pointer, n int, f int64, o outputs) bool {
	var to *second
	if a := before[tensorArgs](s); a != nil && a.partial == 0 && a.c == x && a.m*a.n == int64(n) && a.half == o.half() {
		to = &a.second
	}
	if a := before[partsArgs](s); a != nil && a.c == x && a.m*a.n == int64(n) && a.half == o.half() {
		to = &a.second
	}
	if to == nil || to.to != 0 {
		return false
	}
	*to = second{y, of, f}
	s.factors.wrote(y, o.size()*n, len(s.calls))
	return true
}
