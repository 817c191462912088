package data

import (
	"flag"
	"image"
	"image/color"
	"image/png"
	"os"
	"testing"
)

var sheet = flag.String("sheet", "", "write a contact sheet of the drawn digits to this PNG file")
var dump = flag.String("dump", "", "write 20000+2000 drawn digits as IDX files with this prefix")

// TestSheet is for eyes: go test ./trainer/data -run TestSheet -sheet /tmp/sheet.png
func TestSheet(t *testing.T) {
	if *sheet == "" {
		t.Skip("no -sheet given")
	}
	const cols, rows, zoom, cell = 25, 16, 2, side + 2
	img := image.NewGray(image.Rect(0, 0, cols*cell*zoom, rows*cell*zoom))
	for i := range cols * rows {
		var p picture
		draw(1, trainStream, uint64(i), &p)
		ox, oy := i%cols*cell*zoom, i/cols*cell*zoom
		for y := range side * zoom {
			for x := range side * zoom {
				img.SetGray(ox+x, oy+y, color.Gray{Y: p[y/zoom*side+x/zoom]})
			}
		}
	}
	f, err := os.Create(*sheet)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, img); err != nil {
		t.Fatal(err)
	}
}

// TestDump is for comparing with other programs, which read IDX:
// go test ./trainer/data -run TestDump -dump /tmp/glyphs-
func TestDump(t *testing.T) {
	if *dump == "" {
		t.Skip("no -dump given")
	}
	for _, c := range []struct {
		name string
		s    stream
		n    int
	}{{"train", trainStream, 20000}, {"test", testStream, 2000}} {
		images, labels := idxImages(uint32(c.n), side, side), idxLabels(uint32(c.n))
		for i := range c.n {
			var p picture
			labels = append(labels, byte(draw(1, c.s, uint64(i), &p)))
			images = append(images, p[:]...)
		}
		write(t, *dump+c.name+"-images", images)
		write(t, *dump+c.name+"-labels", labels)
	}
}
