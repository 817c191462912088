// Package logadapt makes the loggers that libraries ask for out of a
// zerolog.Logger: an hclog.Logger for hashicorp/raft, a *log.Logger for
// memberlist.
//
// Both libraries take for notable what is routine in a cluster that expects
// nodes to come and go. So their information goes to debug and their debugging
// to trace; of their warnings and errors each message is let through as a warning
// once per period and goes to debug otherwise.
package logadapt
