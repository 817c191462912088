package main

import (
	"testing"

	pb "github.com/musterml/muster/proto"
)

// What a trainer computes on is shown with the memory of its cards, and that it has failed.
func TestStatusShowsDevices(t *testing.T) {
	cards := &pb.Computer{Name: "2 x cuda NVIDIA H200", Cards: 2, Used: 31 << 30, Memory: 280 << 30}
	for _, c := range []struct {
		node *pb.NodeStatus
		want string
	}{
		{&pb.NodeStatus{}, ""}, // a server
		{&pb.NodeStatus{Computer: &pb.Computer{Name: "cpu avx512"}}, "cpu avx512"},
		{&pb.NodeStatus{Computer: cards}, "2 x cuda NVIDIA H200, 31.0 of 280.0 GiB"},
		{&pb.NodeStatus{Computer: cards, Retired: "an illegal memory access"}, "2 x cuda NVIDIA H200, 31.0 of 280.0 GiB, has failed"},
	} {
		if got := computer(c.node); got != c.want {
			t.Errorf("%v is shown as %q, want %q", c.node, got, c.want)
		}
		o := nodeObject(&pb.Status{}, c.node).Device
		if (o != nil) != (c.want != "") || o != nil && (o.Name != c.node.Computer.Name || o.Failed != c.node.Retired || o.Used != c.node.Computer.Used) {
			t.Errorf("%v is %+v in JSON", c.node, o)
		}
	}
}
