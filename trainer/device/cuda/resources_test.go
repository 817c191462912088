package cuda

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// What can be said of the compiled kernels without a GPU: whether a card can launch them as this package asks for them, and how many fit a processor
// at once. The compiler notes it beside the machine code, as attributes (.nv.info), which NVIDIA documents nowhere; what is read here was
// compared with what cuobjdump -res-usage says.

// chip is what an architecture has for the blocks on one processor (CUDA C++ Programming Guide 12.9, table "Technical Specifications per Compute Capability").
type chip struct {
	name          string
	blockShared   int // bytes that a block may have, where it asks for more than notAsked
	shared        int // bytes of all blocks, with takenByBlock of each
	warps, blocks int // at once
	noted         int // bytes of takenByBlock in what the object notes
}

var chips = []chip{
	{"sm_80", 163 << 10, 164 << 10, 64, 32, 0}, {"sm_86", 99 << 10, 100 << 10, 48, 16, 0},
	{"sm_89", 99 << 10, 100 << 10, 48, 24, 0}, {"sm_90", 227 << 10, 228 << 10, 64, 32, takenByBlock},
}

const (
	registers    = 1 << 16 // of a processor
	takenByBlock = 1 << 10 // shared memory that the system has of each
	notAsked     = 48 << 10
	mostParams   = 4096 // bytes
)

// resources is what a kernel takes.
type resources struct {
	registers int // of a thread
	threads   int // of a block, at most
	local     int // bytes of memory of each thread's own: registers that are spilled, arrays that do not fit them
	shared    int // bytes that it has by itself
	params    []int
}

// allocated is how many registers a warp gets: they are given in units of 256.
func (r resources) allocated() int { return ceil(warpThreads*r.registers, 256) * 256 }

// fits tells what keeps a block of so many threads, with so many bytes of shared memory besides, from a processor; nil if nothing does.
func (c chip) fits(r resources, threads, shared int) error {
	all := r.shared + shared
	switch {
	case threads > r.threads:
		return fmt.Errorf("%d threads are launched, it was compiled for %d", threads, r.threads)
	case ceil(threads, warpThreads)*r.allocated() > registers:
		return fmt.Errorf("%d registers of each of %d threads: a processor has %d", r.registers, threads, registers)
	case all > c.blockShared:
		return fmt.Errorf("%d bytes of shared memory: a block may have %d", all, c.blockShared)
	case all > notAsked && shared <= notAsked:
		return fmt.Errorf("%d bytes of shared memory, %d of them by itself: the driver is not asked for more than %d (launch in driver_cu.go)", all, r.shared, notAsked)
	}
	return nil
}

// resident is how many warps of such blocks a processor has at once. Each quarter of it has a quarter of the registers.
func (c chip) resident(r resources, threads, shared int) int {
	warps := ceil(threads, warpThreads)
	blocks := min(c.blocks, c.warps/warps, registers/4/r.allocated()*4/warps, c.shared/(ceil(r.shared+shared+takenByBlock, 128)*128))
	return blocks * warps
}

// embedded are the resources of all kernels by architecture and name; none if the sources have changed since, as TestEmbeddedKernelsAreUpToDate says.
var embedded = sync.OnceValues(func() (map[string]map[string]resources, error) {
	got, want, err := sourcesOfKernels()
	if err != nil || got != want {
		return nil, err
	}
	all := map[string]map[string]resources{}
	for _, c := range chips {
		packed, err := os.ReadFile("built/muster_" + c.name + ".cubin.gz")
		if err != nil {
			return nil, err
		}
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			return nil, err
		}
		image, err := io.ReadAll(z)
		if err != nil {
			return nil, err
		}
		if all[c.name], err = kernelsOf(image, c.noted); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return all, nil
})

// kernelsOf reads an object, in whose sizes of shared memory are so many bytes of the system's.
func kernelsOf(image []byte, noted int) (map[string]resources, error) {
	image[20] = byte(elf.EV_CURRENT) // which NVIDIA's own is put in the place of: 129
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	symbols, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	all := map[string]*resources{}
	for _, s := range f.Sections {
		if name, ok := strings.CutPrefix(s.Name, ".nv.info."); ok {
			all[name] = new(resources)
		}
	}
	for _, s := range f.Sections {
		if name, ok := strings.CutPrefix(s.Name, ".nv.shared."); ok && all[name] != nil {
			all[name].shared = int(s.Size) - noted
		}
		if s.Name != ".nv.info" && !strings.HasPrefix(s.Name, ".nv.info.") {
			continue
		}
		attributes, err := s.Data()
		if err != nil {
			return nil, err
		}
		r := all[strings.TrimPrefix(s.Name, ".nv.info.")]
		if err := eachAttribute(attributes, func(kind byte, v []byte) { note(all, r, symbols, kind, v) }); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	kernels := map[string]resources{}
	for name, r := range all {
		kernels[name] = *r
	}
	return kernels, nil
}

// eachAttribute calls f for each: its format, its kind, and 2 bytes that are its value or, in format 4, the length of the value that follows.
func eachAttribute(b []byte, f func(kind byte, value []byte)) error {
	for len(b) >= 4 {
		length := 4
		if b[0] == 4 {
			length += int(binary.LittleEndian.Uint16(b[2:]))
		}
		if length > len(b) {
			return io.ErrUnexpectedEOF
		}
		f(b[1], b[2:length])
		b = b[length:]
	}
	return nil
}

// note takes an attribute of the kernel r, or, without one, of the object.
func note(all map[string]*resources, r *resources, symbols []elf.Symbol, kind byte, v []byte) {
	word := func(i int) int { return int(binary.LittleEndian.Uint32(v[2+4*i:])) }
	of := func() *resources { // the object's are about a symbol
		if k := all[symbols[word(0)-1].Name]; k != nil { // package elf leaves out the first
			return k
		}
		return new(resources) // a function that is called
	}
	switch {
	case r == nil && kind == 0x2f: // EIATTR_REGCOUNT
		of().registers = word(1)
	case r == nil && kind == 0x11: // EIATTR_FRAME_SIZE
		of().local = word(1)
	case r != nil && kind == 0x05: // EIATTR_MAX_THREADS
		r.threads = word(0) * word(1) * word(2)
	case r != nil && kind == 0x17: // EIATTR_KPARAM_INFO, the last parameter first: index, ordinal and offset, and a size with flags below it
		r.params = slices.Insert(r.params, 0, word(2)>>18)
	}
}

// launchable tells what is wrong with a launch on any card.
func launchable(kernel string, threads, shared, words int) error {
	objects, err := embedded()
	if err != nil || objects == nil {
		return err
	}
	for _, c := range chips {
		r, ok := objects[c.name][kernel]
		if !ok {
			return fmt.Errorf("there is no kernel %s in the object for %s", kernel, c.name)
		}
		if want := []int{8 * (words - 2), 16}; !slices.Equal(r.params, want) { // the last two words are the mark
			return fmt.Errorf("kernel %s takes parameters of %v bytes, and is given %v", kernel, r.params, want)
		}
		if err := c.fits(r, threads, shared); err != nil {
			return fmt.Errorf("kernel %s on %s: %w", kernel, c.name, err)
		}
	}
	return nil
}

// residents says how a kernel lies on a processor of sm_90.
func residents(c *call) string {
	objects, err := embedded()
	r, ok := objects["sm_90"][c.kernel]
	if err != nil || !ok {
		return ""
	}
	return fmt.Sprintf("%d registers, %.1f KiB, %d warps", r.registers, float64(r.shared+c.shared)/1024, chips[3].resident(r, c.threads, c.shared))
}

// spilled are the kernels that may have so many bytes of local memory. What lies in it is in the cache of the processor; but of a kernel that is not
// named here, none is expected.
var spilled = map[string]int{
	"attention_backward_key": 64, "attention_backward_query": 32,
	"attention_bf16_64": 80, "attention_backward_query_tf32_128": 24,
	"conv_backward_data_tf32_medium": 176, "conv_backward_weight_tf32_medium": 160,
	"matmul_nn_bf16_medium": 24, "matmul_nn_tf32_medium": 104, "matmul_tn_bf16_medium": 8, "matmul_tn_tf32_medium": 112,
}

// Every kernel in the objects; how it is launched, all tests on the emulator and TestTraffic see.
func TestResources(t *testing.T) {
	objects, err := embedded()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chips {
		for name, r := range objects[c.name] {
			if r.registers == 0 || r.threads == 0 || len(r.params) == 0 {
				t.Errorf("%s, %s: not all is known: %+v", c.name, name, r)
				continue
			}
			if err := c.fits(r, r.threads, 0); err != nil {
				t.Errorf("%s, %s: %v", c.name, name, err)
			}
			if n := sum(r.params); n > mostParams {
				t.Errorf("%s, %s: %d bytes of parameters are too many: at most %d", c.name, name, n, mostParams)
			}
			if most := spilled[strings.TrimSuffix(name, "_bf16")]; r.local > most { // the same over other memories
				t.Errorf("%s, %s: %d bytes of local memory of each thread, at most %d were to be expected", c.name, name, r.local, most)
			}
		}
	}
}

func sum(v []int) (all int) {
	for _, x := range v {
		all += x
	}
	return all
}
