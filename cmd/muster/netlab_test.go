package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// netlab is a network of its own: hosts, which are network namespaces, on one switch. Nothing of it is seen outside.
// Host i has the address 10.88.0.i+1.
type netlab struct {
	t    *testing.T
	name string
}

// newNetlab makes a network of so many hosts; it skips the test where that cannot be.
func newNetlab(t *testing.T, hosts int) *netlab {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root: run this test with sudo to see it")
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is missing: install iproute2 to see this test", tool)
		}
	}
	l := &netlab{t: t, name: fmt.Sprintf("mlab%d", os.Getpid())}
	if out, err := exec.Command("ip", "netns", "add", l.hub()).CombinedOutput(); err != nil {
		t.Skipf("this system makes no network namespaces: %v: %s", err, out)
	}
	t.Cleanup(func() {
		for i := range hosts {
			_ = exec.Command("ip", "netns", "del", l.host(i)).Run()
		}
		_ = exec.Command("ip", "netns", "del", l.hub()).Run()
	})
	l.run("ip -n %s link add br0 type bridge", l.hub())
	l.run("ip -n %s link set br0 up", l.hub())
	for i := range hosts {
		h := l.host(i)
		l.run("ip netns add %s", h)
		l.run("ip -n %s link add p%d type veth peer name eth0 netns %s", l.hub(), i, h)
		l.run("ip -n %s link set p%d master br0 up", l.hub(), i)
		l.run("ip -n %s addr add %s/24 dev eth0", h, l.ip(i))
		l.run("ip -n %s link set eth0 up", h)
		l.run("ip -n %s link set lo up", h)
	}
	return l
}

func (l *netlab) hub() string       { return l.name + "-hub" }
func (l *netlab) host(i int) string { return fmt.Sprintf("%s-%d", l.name, i) }
func (l *netlab) ip(i int) string   { return fmt.Sprintf("10.88.0.%d", i+1) }

// on is what goes before a command to run it on a host.
func (l *netlab) on(i int) []string { return []string{"ip", "netns", "exec", l.host(i)} }

func (l *netlab) run(format string, args ...any) {
	l.t.Helper()
	words := strings.Fields(fmt.Sprintf(format, args...))
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		l.t.Fatalf("%s: %v: %s", strings.Join(words, " "), err, out)
	}
}

// rate limits a host's link in both directions.
func (l *netlab) rate(i int, rate string) {
	l.run("ip netns exec %s tc qdisc replace dev eth0 root tbf rate %s burst 256kb limit 1mb", l.host(i), rate)
	l.run("ip netns exec %s tc qdisc replace dev p%d root tbf rate %s burst 256kb limit 1mb", l.hub(), i, rate)
}

// link takes a host's cable out of the switch, or puts it back.
func (l *netlab) link(i int, state string) { l.run("ip -n %s link set p%d %s", l.hub(), i, state) }

// cut loses all that goes from one host to another, and nothing else: it is sent to a card that nobody has.
func (l *netlab) cut(from, to int) {
	l.run("ip -n %s neigh replace %s lladdr 02:00:00:00:00:01 nud permanent dev eth0", l.host(from), l.ip(to))
}

func (l *netlab) mend(from, to int) {
	l.run("ip -n %s neigh del %s dev eth0", l.host(from), l.ip(to))
}
