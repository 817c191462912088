//go:build cuda

package cuda

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
)

// What kernels/compile.py has made of the kernels: machine code for the architectures that it names, and PTX, which the
// driver compiles itself, for all later ones.
//
//go:embed built/*.gz
var built embed.FS

// object is the machine code for an architecture, else the PTX, and its name.
func object(architecture string) (name string, image []byte, err error) {
	name = "muster_" + architecture + ".cubin"
	packed, err := built.ReadFile("built/" + name + ".gz")
	if err != nil {
		name = portable
		if packed, err = built.ReadFile("built/" + name + ".gz"); err != nil {
			return "", nil, err
		}
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return "", nil, fmt.Errorf("embedded %s: %w", name, err)
	}
	image, err = io.ReadAll(z)
	return name, image, err
}
