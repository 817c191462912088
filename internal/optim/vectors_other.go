//go:build !amd64

package optim

func available() []*vectors { return []*vectors{{name: "go"}} }
