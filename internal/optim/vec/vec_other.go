//go:build !amd64

package vec

var setGo = Set{name: "go"}

func available() []*Set { return []*Set{&setGo} }
