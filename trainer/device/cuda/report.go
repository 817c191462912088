package cuda

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/musterml/muster/trainer/device"
)

// report is what operations tell the host: totals of losses, whether all was finite, and faults that only the data
// show. It lies in a small memory of the GPU, which comes to the host at Sync.
type report struct {
	at      pointer
	staged  []byte // pinned
	used    int    // cells
	answers []answer
	blamed  []string // the operations that may blame data, by their number
}

// answer is where a cell of the report goes.
type answer struct {
	cell  int
	total *device.Total
	ok    *bool
}

const (
	reportCells = 4096 // of 16 bytes
	cellBytes   = 16
	noFault     = math.MaxUint64
	faultShift  = 40 // of the number of the operation, above the place
)

func (s *stream) makeReport() (err error) {
	r := &s.report
	if r.at, err = s.d.gpu.alloc(reportCells * cellBytes); err != nil {
		return err
	}
	if r.staged, err = s.d.gpu.pinned(reportCells * cellBytes); err != nil {
		return err
	}
	return s.resetFault()
}

// resetFault makes cell 0, which is the fault.
func (s *stream) resetFault() error {
	r := &s.report
	r.used, r.answers, r.blamed = 1, r.answers[:0], r.blamed[:0]
	binary.LittleEndian.PutUint64(r.staged, noFault)
	return s.q.write(r.at, r.staged[:8])
}

// cell is a new cell of the report. Where there is none left, what is there is taken first.
func (s *stream) cell(a answer) pointer {
	r := &s.report
	if r.used == reportCells {
		s.askReport()
		if s.asked(s.q.sync()); s.broken != nil {
			return 0
		}
		s.takeReport()
	}
	a.cell = r.used
	r.used++
	if a.total != nil || a.ok != nil {
		r.answers = append(r.answers, a)
	}
	return r.at + pointer(a.cell*cellBytes)
}

// fault is the argument of a kernel that may blame data.
type fault struct {
	word      pointer
	operation uint64
}

func (s *stream) mayBlame(op string) fault {
	s.report.blamed = append(s.report.blamed, op)
	return fault{s.report.at, uint64(len(s.report.blamed) - 1)}
}

func (s *stream) askReport() {
	r := &s.report
	s.issue()
	s.asked(s.q.read(r.staged[:r.used*cellBytes], r.at))
}

func (s *stream) takeReport() {
	r := &s.report
	for _, a := range r.answers {
		cell := r.staged[a.cell*cellBytes:]
		switch {
		case a.total != nil:
			*a.total = device.Total{Loss: math.Float64frombits(binary.LittleEndian.Uint64(cell)), Correct: int(binary.LittleEndian.Uint64(cell[8:]))}
		default:
			*a.ok = binary.LittleEndian.Uint32(cell) == 0
		}
	}
	if word := binary.LittleEndian.Uint64(r.staged); word != noFault {
		s.fail(fmt.Errorf("%s: what is at place %d is out of range", r.blamed[word>>faultShift], word&(1<<faultShift-1)))
	}
	r.drop()
	s.asked(s.resetFault())
}

// drop forgets what was asked, and holds on to nobody's memory.
func (r *report) drop() {
	clear(r.answers)
	r.answers = r.answers[:0]
}
