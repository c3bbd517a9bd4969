// Package inflate decodes raw deflate (RFC 1951) into a buffer whose size is known
// beforehand, as that of a compressed cluster is.
//
// Because the whole output is at hand, there is no window to keep beside it and nothing
// to hand over in pieces: matches are copied inside of the output, in words. A stream
// need not end: the output is right when it is full.
package inflate
