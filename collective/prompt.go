package collective

import "errors"

// errNotNow: there is nothing to read, or no room to write, at this moment.
var errNotNow = errors.New("not now")

// prompt is a connection that says at once what it can do, so that the caller of an operation can see to it without
// any goroutine being woken (drive.go).
type prompt interface {
	// tryRead is Read, with errNotNow in place of waiting; tryWrite writes two pieces likewise. Each is used by one
	// goroutine at a time.
	tryRead(p []byte) (int, error)
	tryWrite(a, b []byte) (int, error)
	// whenReadable calls f, and again whenever more may have come, until f says that it is done or reading is
	// interrupted by a deadline or by closing, which is the error. No arrival is missed, whoever reads meanwhile.
	whenReadable(f func() (done bool)) error
}
