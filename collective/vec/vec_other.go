//go:build !amd64

package vec

func available() []*Set { return []*Set{{name: "go"}} }
