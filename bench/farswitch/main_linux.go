// Command farswitch is an Ethernet switch whose wires are long: every packet arrives so much later. It stands in for netem,
// which many kernels are built without. Connections over it have real windows, losses and round trips.
//
//	farswitch -delay 10ms PORT...
//
// It makes a tap device for each port, says so on a line of standard output, and works until it is killed, which
// removes the devices. They may be moved to other network namespaces. Needs root.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// wire is the way to one port. What is on it waits there for its time; where it is full, packets are lost.
type wire struct {
	tap   *os.File
	onWay chan packet
	net   *network
}

type packet struct {
	due  time.Time
	data []byte
}

type network struct {
	delay time.Duration
	wires []*wire
	mu    sync.Mutex
	where map[[6]byte]*wire // who was last heard where
}

const onWay = 1 << 15 // packets

func main() {
	delay := flag.Duration("delay", 10*time.Millisecond, "of every packet, one way")
	flag.Parse()
	if err := run(*delay, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "farswitch:", err)
		os.Exit(1)
	}
}

func run(delay time.Duration, names []string) error {
	n := &network{delay: delay, where: map[[6]byte]*wire{}}
	for _, name := range names {
		tap, err := openTap(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		n.wires = append(n.wires, &wire{tap: tap, onWay: make(chan packet, onWay), net: n})
	}
	failed := make(chan error)
	for _, w := range n.wires {
		go w.deliver()
		go func() { failed <- w.listen() }()
	}
	fmt.Println("ready")
	return <-failed
}

func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// listen sends what comes from a port on its way.
func (w *wire) listen() error {
	buf := make([]byte, 1<<16)
	for {
		n, err := w.tap.Read(buf)
		if err != nil {
			return err
		}
		if n < 14 {
			continue
		}
		p := packet{time.Now().Add(w.net.delay), append([]byte(nil), buf[:n]...)}
		for _, to := range w.net.towards(w, [6]byte(buf[:6]), [6]byte(buf[6:12])) {
			select {
			case to.onWay <- p:
			default:
			}
		}
	}
}

// towards is the port of an address, or all others where it is not known.
func (n *network) towards(from *wire, to, source [6]byte) []*wire {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.where[source] = from
	if w := n.where[to]; w != nil {
		return []*wire{w}
	}
	var all []*wire
	for _, w := range n.wires {
		if w != from {
			all = append(all, w)
		}
	}
	return all
}

func (w *wire) deliver() {
	for p := range w.onWay {
		time.Sleep(time.Until(p.due))
		_, _ = w.tap.Write(p.data) // a device that is down takes none
	}
}
