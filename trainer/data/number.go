package data

import (
	"math"
	"strconv"
)

// powersOfTen are exact.
var powersOfTen = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// number reads a decimal number, or nan or inf as strconv knows them. A number of up to 15
// digits without an exponent, which is what files are full of, is the quotient of two
// integers that a float64 holds exactly, so one division rounds it correctly (Clinger, "How
// to read floating point numbers accurately", PLDI 1990).
func number[T string | []byte](s T) (x float64, ok bool) {
	at, digits, fraction := 0, 0, 0
	negative := false
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		negative, at = s[0] == '-', 1
	}
	var mantissa int64
	for point := false; at < len(s); at++ {
		switch c := s[at]; {
		case '0' <= c && c <= '9':
			mantissa = 10*mantissa + int64(c-'0')
			digits++
			if point {
				fraction++
			}
		case c == '.' && !point:
			point = true
		default:
			digits = math.MaxInt // left to strconv
		}
		if digits > 15 {
			x, err := strconv.ParseFloat(string(s), 64)
			return x, err == nil
		}
	}
	if digits == 0 {
		return 0, false
	}
	x = float64(mantissa) / powersOfTen[fraction]
	if negative {
		x = -x
	}
	return x, true
}

// fits tells whether a number is one that a float32 can hold.
func fits(x float64) bool { return math.Abs(x) <= math.MaxFloat32 }
