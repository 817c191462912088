package device

// Dropout is y[i] = 0 with probability P, else x[i]/(1-P): PyTorch's nn.Dropout in training. It is its own backward
// pass: with the same P and Key it does to dy what it did to x. Y may be X.
//
// Which elements are dropped is a function of P, Key and i alone, the same on every device, so no mask is
// kept. The random numbers are Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011): the generator's key is Seed (low word first), its counter (i/64*16 + i%16, Layer*2**16 + Shard, low and
// high word of Step), and element i takes the word i/16%4 of the four that come out, so that sixteen counters side by
// side serve sixteen elements side by side. It is dropped if that word is below P * 2**32, rounded to nearest.
type Dropout struct {
	N    int // at most 2**34
	Y, X Buffer
	P    float32 // in [0, 1)
	Key  DropoutKey
}

// DropoutKey tells dropouts apart: no two of a run have the same. It names the logical shard and not the trainer, so
// that it does not matter who computes it.
type DropoutKey struct {
	Seed  uint64 // of the job
	Step  uint64
	Shard uint16 // the logical shard
	Layer uint16 // the dropout's number within the model
}
