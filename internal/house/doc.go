// Package house holds the house rules that a machine can check; there is nothing else in it.
package house
