package collective

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// The bits of a sum of floats depend on the ring's order alone: not on stripes, rounds, transport, or who drives.
func TestSameBitsEveryWay(t *testing.T) {
	const world, n = 3, 1001
	rng := rand.New(rand.NewPCG(1, 2))
	in := make([][]float32, world)
	for r := range in {
		in[r] = make([]float32, n)
		for i := range in[r] {
			in[r][i] = float32(rng.NormFloat64())
		}
	}
	var want []float32
	for _, kind := range []string{waited, asked, lanes, striped} {
		for _, chunk := range []int{4, 36, 100, 1024, 8192} {
			for _, stripes := range []int{2, 3, 8} {
				if kind != striped && stripes != 2 {
					continue
				}
				synctest.Test(t, func(t *testing.T) {
					m := newMemNet(150).by(way{false, kind})
					rings := joinAll(t, world, func(rank int) Config {
						c := m.config(rank, world)
						c.ChunkBytes = chunk
						if kind == striped {
							c.Stripes = stripes
						}
						return c
					})
					defer closeAll(rings)
					x := cloneAll(in)
					for _, err := range onAll(rings, func(i int, r *Ring) error { return r.AllReduce(bg, Op{}, Float32s(x[i]), SumFloat32) }) {
						if err != nil {
							t.Fatal(err)
						}
					}
					if want == nil {
						want = x[0]
					}
					for i := range x {
						if !slices.Equal(x[i], want) {
							t.Errorf("%s, chunks of %d, %d stripes: rank %d has other bits", kind, chunk, stripes, i)
						}
					}
				})
			}
		}
	}
}

// A single stripe that dies or freezes, at work or between calls, ends the ring, and one of its two ends is named.
func TestStripeFaults(t *testing.T) {
	for name, hit := range map[string]func(*memPipe){
		"dies":    func(p *memPipe) { p.buf, p.broken = nil, syscall.ECONNRESET },
		"closes":  func(p *memPipe) { p.eof = true },
		"freezes": func(p *memPipe) { p.frozen = true },
	} {
		for _, idle := range []bool{false, true} {
			for number := range 3 {
				t.Run(fmt.Sprintf("%s/idle=%v/%d", name, idle, number), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m := newMemNet(150).by(way{false, striped})
						rings := joinAll(t, 4, func(rank int) Config { return m.config(rank, 4) })
						defer closeAll(rings)
						wire := m.wire("n1", "n2", number)
						strike := func() {
							for _, p := range []*memPipe{wire.in, wire.out} {
								p.change(func() { hit(p) })
							}
						}
						began := time.Now()
						if idle {
							<-time.After(time.Minute)
							began = time.Now()
							strike()
						}
						errs := onAll(rings, func(i int, r *Ring) error {
							for step := 0; ; step++ {
								if step == 5 && i == 1 && !idle {
									strike()
								}
								if err := mixed(r, 0, make([]int32, 5000)); err != nil {
									return err
								}
							}
						})
						// The others still bring signs of life, until each holds as many as it can.
						if d := time.Since(began); d > DefaultDeadAfter+(2+2*3)*DefaultHeartbeat {
							t.Errorf("after %v", d)
						}
						for i, err := range errs {
							if err != nil && (i == 1 || i == 2) { // the others may have cut off whom the other end blames
								continue
							}
							var abort *AbortError
							if !errors.As(err, &abort) || abort.Suspect != "n1" && abort.Suspect != "n2" {
								t.Errorf("rank %d: %v", i, err)
							}
						}
					})
				})
			}
		}
	}
}

// bundles are the two ends of one bundle, and the pipes from the first to the second.
func bundles(n, limit int) (a, b *bundle, wires []*memPipe) {
	var near, far []net.Conn
	for range n {
		x, y := memPair(limit)
		near, far, wires = append(near, x), append(far, y), append(wires, x.out)
	}
	return newBundle(near, func() {}), newBundle(far, func() {}), wires
}

// A stripe that is slower than the others carries less, and one that is held up for a while holds up what needs its chunk.
func TestStripesPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, wires := bundles(3, chunkHeader+chunkBytes)
		slow := wires[1]
		slow.change(func() { slow.frozen = true })
		time.AfterFunc(100*time.Millisecond, func() { slow.change(func() { slow.frozen = false }) })
		sent := make([]byte, 100*chunkBytes+17)
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range sent {
			sent[i] = byte(rng.Uint32())
		}
		began := time.Now()
		go func() {
			for p := sent; len(p) > 0; {
				n := min(len(p), 1+rng.IntN(3*chunkBytes))
				if _, err := a.Write(p[:n]); err != nil {
					t.Error(err)
				}
				p = p[n:]
			}
		}()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatal("other bytes have come", err)
		}
		if d := time.Since(began); d != 100*time.Millisecond {
			t.Errorf("took %v", d)
		}
		_, _ = a.Close(), b.Close()
	})
}

// What a bundle is given before it is closed arrives, and then comes the end. Deadlines interrupt, and no byte is lost.
func TestBundleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := bundles(3, 100)
		p := make([]byte, 20*chunkBytes) // more than it takes
		_ = a.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := a.Write(p)
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == len(p) {
			t.Errorf("%d bytes written: %v", n, err)
		}
		_ = a.SetWriteDeadline(time.Now().Add(time.Second))
		go func() { _ = a.Close() }()
		got, err := io.ReadAll(b)
		if len(got) != n || err != nil {
			t.Errorf("%d bytes of %d have come: %v", len(got), n, err)
		}
		_ = b.SetReadDeadline(time.Now().Add(time.Second))
		<-time.After(time.Second)
		if _, err := b.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		_ = b.Close()
	})
}

// What no writer would send ends reading, with an error that says so; nothing is waited for that cannot come.
func TestBundleRefuses(t *testing.T) {
	chunk := func(number uint64, length, bytes int) []byte {
		b := binary.LittleEndian.AppendUint64(nil, number)
		return append(binary.LittleEndian.AppendUint32(b, uint32(length)), make([]byte, bytes)...)
	}
	for name, c := range map[string]struct {
		stripes [2][]byte
		want    error
	}{
		"empty":    {[2][]byte{chunk(0, 0, 0)}, ErrProtocol},
		"too long": {[2][]byte{chunk(0, chunkBytes+1, 0)}, ErrProtocol},
		"twice":    {[2][]byte{append(chunk(0, 1, 1), chunk(0, 1, 1)...)}, ErrProtocol},
		"missing":  {[2][]byte{chunk(1, 1, 1), chunk(2, 1, 1)}, ErrProtocol},
		"torn":     {[2][]byte{chunk(0, 9, 8), nil}, io.ErrUnexpectedEOF},
		"nothing":  {[2][]byte{}, io.EOF},
	} {
		synctest.Test(t, func(t *testing.T) {
			var conns []net.Conn
			for _, b := range c.stripes {
				x, y := memPair(200)
				_, _ = x.Write(b)
				if c.want != ErrProtocol {
					_ = x.Close()
				}
				conns = append(conns, y)
			}
			b := newBundle(conns, func() {})
			if _, err := io.Copy(io.Discard, onlyReader{b}); !errors.Is(err, c.want) && (err != nil || c.want != io.EOF) {
				t.Errorf("%s: %v", name, err)
			}
			_ = b.Close()
		})
	}
}

type onlyReader struct{ io.Reader }

// FuzzBundle: no bytes on two stripes make it panic, hang or take what is out of order.
func FuzzBundle(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00a"), []byte("\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00bc"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		synctest.Test(t, func(t *testing.T) {
			var conns []net.Conn
			for _, p := range [][]byte{one, two} {
				x, y := memPair(len(p) + 1)
				_, _ = x.Write(p)
				_ = x.Close()
				conns = append(conns, y)
			}
			b := newBundle(conns, func() {})
			if n, _ := io.Copy(io.Discard, onlyReader{b}); int(n) > len(one)+len(two) {
				t.Error("more came than was sent")
			}
			_ = b.Close()
		})
	})
}

func TestStripesOverTCP(t *testing.T) {
	for _, world := range []int{2, 3} {
		configs := tcpConfigs(t, world)
		rings := joinAll(t, world, func(rank int) Config {
			c := configs(rank)
			c.Stripes, c.NoLanes = 4, true
			return c
		})
		if way := rings[0].Transport(); way != "4 stripes of tcp" {
			t.Errorf("it goes over %s", way)
		}
		for _, n := range []int{0, 1, 1000, 300_001} {
			checkAll(t, rings, n, 1)
		}
		closeAll(rings)
	}
}
