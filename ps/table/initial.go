package table

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// golden is 2^64 divided by the golden ratio, the increment of SplitMix64.
const golden = 0x9e3779b97f4a7c15

// origin keeps the tables of a seed apart.
func origin(seed uint64, table int) uint64 {
	return mix(mix(seed+golden) + uint64(table+1)*golden)
}

// initial fills in a row's initial value: element j is the j-th number of a SplitMix64 stream that begins at a hash of seed,
// table and key, of which 24 bits make a multiple of Scale/2^23 in (-Scale, Scale).
func (t *table) initial(key uint64, dst []float32) {
	if t.cfg.Scale == 0 {
		clear(dst)
		return
	}
	state := mix(t.origin ^ mix(key+golden))
	for j := range dst {
		state += golden
		odd := int32(mix(state)>>40)*2 + 1 - 1<<24 // odd, so never 0 and never an end: within (-2^24, 2^24), exact
		dst[j] = float32(odd) * (1.0 / (1 << 24)) * t.cfg.Scale
	}
}
