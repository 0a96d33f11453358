package bindings

// SetPieceSize makes Tokenize cut texts after so many bytes, and gives the way back.
func SetPieceSize(n int) (restore func()) {
	before := pieceSize
	pieceSize = n
	return func() { pieceSize = before }
}
