// Package trainer is the run as one node's trainer lives it: the job, the step loop,
// the ways to keep weights one, and recovery.
//
// A gradient's way: work.go computes it, one for each logical shard; exchange.go agrees
// on exponents, quantises, and adds it to the others' over the ring of package
// collective; sync.go has the sum clipped (update.go) and gives it to the optimizer, here
// (mode ring; on GPUs where these keep the state, cards.go) or on the parameter servers of package ps (mode server), and the new weights
// are the next state (state.go). shift.go is the loop around that for one view; trainer.go goes
// from view to view as package membership agrees on them.
//
// In modes ssp and async there is no ring: arrive.go takes the place of all that. In mode local a unit is a round
// of many steps (local.go), and the rest is as in mode server. docs/modes.md compares the modes.
//
// # What it promises
//
//   - With sum exact, the state at every step is a function of the job alone: not of the
//     number of trainers, the ring's order, GOMAXPROCS, or of who failed when.
//   - A step is done once. A view that ends in the middle of a step leaves every trainer
//     with the state at its beginning or at its end, never between; the next view begins
//     at the newest of these, and gradients that are still valid are not computed again.
package trainer
