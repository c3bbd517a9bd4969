// Package virtnbd reads the stream container of virtnbdbackup, its .data files, as
// a link of a chain of backups.
//
// A stream is a row of frames. Each begins with a header of 40 bytes of ASCII,
//
//	kind SP start SP length CR LF
//
// where kind has 4 letters and the numbers 16 hexadecimal digits each:
//
//	meta   first; length bytes of JSON and CR LF follow
//	data   guest bytes [start, start+length); the payload and CR LF follow
//	zero   guest bytes [start, start+length) read as zero; nothing follows
//	stop   the end of the stream; a file without it was cut
//	comp   behind the stop frame: length bytes of JSON and CR LF stand before it,
//	       the compressed sizes of all payloads (the trailer)
//
// The payload of a plain stream is length bytes. That of a compressed one (streams
// of version 2 only) is one or more LZ4 frames, which together give length bytes:
// those of the tool hold 32 MiB each, in linked blocks of 64 KiB, with a checksum
// for each block and one for the content. LZ4 frames delimit themselves, so the
// trailer is not needed, and one that is missing or damaged does not stop a read.
//
// What no frame tells of is absent: unchanged in an increment, zero in a full
// backup, whose streams have zero frames for it.
//
// The tool writes frames in ascending order. Other orders are read too; frames that
// overlap are refused, for only a guess could tell which holds.
package virtnbd
