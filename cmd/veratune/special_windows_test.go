package main

// Windows has none of these at a path.
func device(string) error   { return errSkip }
func socket(string) error   { return errSkip }
func makePipe(string) error { return errSkip }
