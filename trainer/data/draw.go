package data

// The drawing of a digit. The goal: pictures that look written by many hands, hard
// enough that a linear model fails where a convolutional one does not, and the same
// bytes on every machine. Floating point would put that at risk: the compiler may fuse
// a*b+c into one rounding on arm64, ppc64 and s390x and not on amd64, and math.Sin, Exp
// and the like differ between architectures. So everything here is integer
// arithmetic: fixed point, a rational rotation in place of sine and cosine, and squared
// distances in place of roots. Only the finished byte becomes a float32, by a table.
//
// Fixed point: "Q16" counts 1/65536, "Q8" 1/256. Lengths are pixels, outlines are
// hundredths of a digit's height (strokes.go).

const (
	side      = 28 // pixels, both ways
	maxPoints = 16 // of one stroke
	perSpan   = 4  // straight pieces between two points of a stroke
	lattice   = 5  // knots of the elastic distortion, both ways
	one       = 1 << 16
)

// picture is one drawn digit, row by row, 0 paper to 255 ink.
type picture [side * side]byte

// vec is a place or a displacement, Q16 pixels unless said otherwise.
type vec struct{ x, y int64 }

// hand is everything random about one picture except the pen's slips (jitter), which
// are drawn point by point, and the noise, pixel by pixel.
type hand struct {
	xx, xy, yx, yy int64                 // outline to pixels, Q16 pixels per unit
	shift          vec                   // where the middle of the digit falls
	bend           [lattice][lattice]vec // elastic distortion at the knots
	jitter         int64                 // how far a point of the outline slips, Q16 units
	thin, thick    int64                 // radius of the pen at the start and the end of a stroke, Q8 pixels
	soft           int64                 // width of the stroke's edge, Q8 pixels
	blur           bool
	gain           int64 // darkness of the ink, 256 = as drawn
	noise          int64 // amplitude of the noise, grey levels
}

// draw makes picture number index of a stream and returns its label: a pure function of
// its arguments. Whoever changes what it draws raises glyphsVersion.
func draw(seed uint64, s stream, index uint64, out *picture) int32 {
	r := random(key(seed, uint64(s), index))
	label := r.below(int64(len(digits)))
	variants := digits[label]
	v := variants[r.below(int64(len(variants)))]
	h := takeHand(&r)
	*out = picture{}
	for _, st := range v {
		h.write(&r, st, out)
	}
	if r.chance(30) {
		slip(&r, out)
	}
	if r.chance(20) {
		scratch(&r, out)
	}
	if h.blur {
		blur(out)
	}
	h.develop(&r, out)
	return int32(label)
}

// takeHand chooses how this picture is written.
func takeHand(r *random) hand {
	const unit = one / 5 // 100 units are 20 pixels
	var h hand
	width := unit * r.span(64, 125) / 100
	height := unit * r.span(75, 118) / 100
	slant := r.bell(one * 50 / 100)
	// Rotation by t = tan(angle/2): cos = (1-t²)/(1+t²), sin = 2t/(1+t²).
	t := r.bell(one * 22 / 100)
	tt := t * t >> 16
	cos := (one - tt) << 16 / (one + tt)
	sin := 2 * t << 16 / (one + tt)
	// Scale, then slant x by y, then rotate.
	h.xx = width * cos >> 16
	h.yx = width * sin >> 16
	up := -slant * height >> 16
	h.xy = (up*cos - height*sin) >> 16
	h.yy = (up*sin + height*cos) >> 16
	h.shift = vec{side*one/2 + r.bell(one*3), side*one/2 + r.bell(one*3)}
	amp := r.span(one/2, one*5/2)
	for i := range h.bend {
		for j := range h.bend[i] {
			h.bend[i][j] = vec{r.bell(amp), r.bell(amp)}
		}
	}
	h.jitter = r.span(2, 8) << 16
	h.thin = r.span(170, 400)
	h.thick = h.thin * r.span(75, 125) / 100
	h.soft = r.span(180, 400)
	h.blur = r.chance(30)
	h.gain = r.span(200, 340)
	h.noise = r.span(0, 56)
	return h
}

// write draws one stroke.
func (h *hand) write(r *random, st stroke, out *picture) {
	var pts [maxPoints]vec
	for i, p := range st {
		pts[i] = h.place(vec{
			(int64(p.x)-50)<<16 + r.bell(h.jitter),
			(int64(p.y)-50)<<16 + r.bell(h.jitter),
		})
	}
	spans := len(st) - 1
	from := h.bent(pts[0])
	for i := range spans {
		p0, p1, p2, p3 := pts[max(i-1, 0)], pts[i], pts[i+1], pts[min(i+2, spans)]
		for j := int64(1); j <= perSpan; j++ {
			to := h.bent(vec{spline(p0.x, p1.x, p2.x, p3.x, j), spline(p0.y, p1.y, p2.y, p3.y, j)})
			done := int64(i)*perSpan + j
			radius := h.thin + (h.thick-h.thin)*done/(int64(spans)*perSpan)
			line(out, from, to, radius, h.soft, 255)
			from = to
		}
	}
}

// place takes a point of the outline (Q16 units from the middle) to the paper.
func (h *hand) place(p vec) vec {
	return vec{
		h.shift.x + (h.xx*p.x+h.xy*p.y)>>16,
		h.shift.y + (h.yx*p.x+h.yy*p.y)>>16,
	}
}

// spline is the Catmull-Rom spline between p1 and p2 at j/perSpan.
func spline(p0, p1, p2, p3, j int64) int64 {
	const n = perSpan
	return (2*p1*n*n*n + (p2-p0)*j*n*n + (2*p0-5*p1+4*p2-p3)*j*j*n + (3*p1-p0-3*p2+p3)*j*j*j) / (2 * n * n * n)
}

// bent moves a place by the elastic distortion: the displacements of the four
// knots round it, blended smoothly so that no crease shows.
func (h *hand) bent(p vec) vec {
	const cell = side * one / (lattice - 1)
	i, u := knot(p.x, cell)
	j, v := knot(p.y, cell)
	a, b := h.bend[j][i], h.bend[j][i+1]
	c, d := h.bend[j+1][i], h.bend[j+1][i+1]
	blend := func(a, b, c, d int64) int64 {
		top := a + (b-a)*u>>16
		low := c + (d-c)*u>>16
		return top + (low-top)*v>>16
	}
	return vec{p.x + blend(a.x, b.x, c.x, d.x), p.y + blend(a.y, b.y, c.y, d.y)}
}

// knot finds the lattice cell of a coordinate and the smoothed place in it, Q16.
func knot(x, cell int64) (i, u int64) {
	x = min(max(x, 0), side*one-1)
	i = x / cell
	u = x % cell << 16 / cell
	u = u * u >> 16 * (3*one - 2*u) >> 16 // smoothstep
	return i, u
}

// line inks every pixel within reach of the segment; the darker ink stays.
// radius and soft are Q8 pixels, ink is the grey level in the middle of the stroke.
func line(out *picture, from, to vec, radius, soft, ink int64) {
	ax, ay, bx, by := from.x>>8, from.y>>8, to.x>>8, to.y>>8 // Q8 from here on
	dx, dy := bx-ax, by-ay
	length2 := dx*dx + dy*dy
	outer := radius + soft/2
	inner := max(radius-soft/2, 0)
	outer2, inner2 := outer*outer, inner*inner
	x0, x1 := reach(min(ax, bx)-outer, max(ax, bx)+outer)
	y0, y1 := reach(min(ay, by)-outer, max(ay, by)+outer)
	for y := y0; y <= y1; y++ {
		py := y<<8 + 128 - ay
		for x := x0; x <= x1; x++ {
			px := x<<8 + 128 - ax
			qx, qy := px, py
			if dot := px*dx + py*dy; dot >= length2 {
				qx, qy = px-dx, py-dy
			} else if dot > 0 {
				t := dot << 10 / length2
				qx, qy = px-dx*t>>10, py-dy*t>>10
			}
			d2 := qx*qx + qy*qy
			if d2 >= outer2 {
				continue
			}
			// Linear in the squared distance: a soft edge without a root.
			grey := ink
			if d2 > inner2 {
				grey = ink * (outer2 - d2) / (outer2 - inner2)
			}
			at := &out[y*side+x]
			*at = max(*at, byte(grey))
		}
	}
}

// reach gives the pixels that [lo, hi] (Q8) touches, cut to the paper.
func reach(lo, hi int64) (int64, int64) { return max(lo>>8, 0), min(hi>>8, side-1) }

// slip draws a short stray stroke of lighter ink anywhere on the paper.
func slip(r *random, out *picture) {
	from := vec{r.below(side * one), r.below(side * one)}
	to := vec{from.x + r.bell(12*one), from.y + r.bell(12*one)}
	line(out, from, to, r.span(100, 220), 256, r.span(100, 230))
}

// scratch takes ink away along a line, as a worn pen or a fold in the paper does.
func scratch(r *random, out *picture) {
	var mask picture
	mid := vec{side*one/2 + r.bell(10*one), side*one/2 + r.bell(10*one)}
	half := vec{r.bell(14 * one), r.bell(14 * one)}
	line(&mask, vec{mid.x - half.x, mid.y - half.y}, vec{mid.x + half.x, mid.y + half.y}, r.span(80, 230), 200, 255)
	keep := r.span(60, 160) // of 256 where the scratch is deepest
	for i, m := range mask {
		if m > 0 {
			out[i] = byte(int64(out[i]) * (256 - int64(m)*(256-keep)/256) >> 8)
		}
	}
}

// blur is the 3x3 binomial filter, once; the paper's border counts as paper.
func blur(out *picture) {
	var rows [side * side]int32
	for y := range side {
		row := out[y*side : (y+1)*side]
		for x := range row {
			sum := 2 * int32(row[x])
			if x > 0 {
				sum += int32(row[x-1])
			}
			if x < side-1 {
				sum += int32(row[x+1])
			}
			rows[y*side+x] = sum
		}
	}
	for i := range rows {
		sum := 2 * rows[i]
		if i >= side {
			sum += rows[i-side]
		}
		if i < len(rows)-side {
			sum += rows[i+side]
		}
		out[i] = byte(sum >> 4)
	}
}

// develop sets the contrast and adds the noise.
func (h *hand) develop(r *random, out *picture) {
	var bits uint64
	for i := range out {
		if i%4 == 0 {
			bits = r.next() // 16 bits for each of four pixels
		}
		// The sum of two bytes less their mean: a triangle over (-255, 255).
		n := int64(bits&255) + int64(bits>>8&255) - 255
		bits >>= 16
		grey := int64(out[i])*h.gain>>8 + n*h.noise>>8
		out[i] = byte(min(max(grey, 0), 255))
	}
}
