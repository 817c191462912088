// Package why explains what a run waits for at this moment: from the status that any
// node gives it follows who waits for whom, to the node, group or fact that holds up
// the others, and says it in one sentence with what a person can do, if anything.
//
// It is a pure function of the status, so that the command line, a dashboard and tests
// say the same. It knows only what the nodes have reported within the last tenths of a
// second: of a run that goes well it shows a moment, in which something is always under
// way, and says that nothing is late.
package why
