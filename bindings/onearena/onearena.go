// Package onearena has all threads of a program that imports it take C's memory from one arena of glibc. A program that
// trains or serves for long imports it in its package main; other packages never do, since it changes the whole
// process.
//
// Go calls C from any of its threads, and glibc keeps what is freed for the threads of an arena: a training would hold
// the same memory several times, and more the longer it goes on.
package onearena

import "C"
