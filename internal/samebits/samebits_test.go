package samebits

import (
	"math"
	"testing"
)

func TestExpLog(t *testing.T) {
	for x := 0.0; x > -720; x -= 0.37 {
		if got, want := Exp(x), math.Exp(x); math.Abs(got-want) > 1e-14*want && x > -700 {
			t.Fatalf("Exp(%v) is %v, want %v", x, got, want)
		}
	}
	for x := 1.0; x < 1e6; x *= 1.0137 {
		if got, want := Log(x), math.Log(x); math.Abs(got-want) > 1e-14*want {
			t.Fatalf("Log(%v) is %v, want %v", x, got, want)
		}
	}
	for _, v := range []float64{Exp(math.NaN()), Log(math.NaN())} {
		if !math.IsNaN(v) {
			t.Fatalf("NaN becomes %v", v)
		}
	}
	if Exp(0) != 1 || Log(1) != 0 || Exp(math.Inf(-1)) != 0 || !math.IsInf(Log(math.Inf(1)), 1) {
		t.Fatal("the special values are wrong")
	}
}

func TestExps(t *testing.T) {
	x := []float64{0, -0.5, -1e-300, -3, -701, -2, math.NaN(), -0.1, math.Inf(-1), -699.9, 0.1, -33, -1, -2, -3}
	for n := range len(x) + 1 {
		got := make([]float64, n)
		Exps(got, x[:n])
		for i, v := range got {
			if want := Exp(x[i]); math.Float64bits(v) != math.Float64bits(want) {
				t.Errorf("of %d, %d: the exponential of %v is %v, not %v", n, i, x[i], v, want)
			}
		}
	}
}

func TestCosPi(t *testing.T) {
	for x := 0.0; x <= 1; x += 1. / 1024 {
		if got, want := CosPi(x), math.Cos(math.Pi*x); math.Abs(got-want) > 1e-15 {
			t.Fatalf("CosPi(%v) is %v, want %v", x, got, want)
		}
	}
	if CosPi(0) != 1 || CosPi(1) != -1 || math.Abs(CosPi(0.5)) > 1e-15 {
		t.Fatal("the special values are wrong")
	}
}

func TestPower(t *testing.T) {
	for _, b := range []float64{0.9, 0.999, 0.5} {
		for _, n := range []uint64{0, 1, 2, 3, 17, 1000, 1 << 40} {
			want := math.Pow(b, float64(n))
			if got := Power(b, n); math.Abs(got-want) > 1e-12*want {
				t.Errorf("%v^%d = %v, want %v", b, n, got, want)
			}
		}
	}
}
