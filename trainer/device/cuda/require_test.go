package cuda

import (
	"strings"
	"testing"
)

func TestUnfit(t *testing.T) {
	for _, c := range []struct {
		major, minor int
		object       string
		driver       int
		want         string // in the error; "" for none
	}{
		{9, 0, "muster_sm_90.cubin", 12000, ""},
		{9, 0, "muster_sm_90.cubin", 13000, ""},
		{8, 0, "muster_sm_80.cubin", 11080, "driver 525"},
		{10, 0, portable, 12090, ""},
		{10, 0, portable, 12080, "the driver, of CUDA 12.8, cannot compile its PTX: install one of CUDA 12.9 or newer (driver 575)"},
		{8, 7, portable, 12040, "no machine code for sm_87"},
		{7, 5, portable, 13000, "compute capability is 7.5"},
	} {
		err := unfit(c.major, c.minor, c.object, c.driver)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
