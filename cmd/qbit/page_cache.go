package main

import "os"

// forgetEvery is how many bytes are read until the system is told to forget them.
const forgetEvery = 256 << 20

// A cacheKeeper keeps the page cache as it was: files that were not in it when the
// reading began are not left there. The zero value does nothing.
type cacheKeeper struct {
	cold   []*os.File
	forgot int64 // bytes that had been read then
}

// keepCache begins, before the files are read.
func keepCache(files []*os.File) cacheKeeper {
	var k cacheKeeper
	for _, f := range files {
		if isCold(f) {
			k.cold = append(k.cold, f)
		}
	}
	return k
}

// passed takes how many bytes were read so far.
func (k *cacheKeeper) passed(read int64) {
	if read-k.forgot >= forgetEvery {
		k.forgot = read
		k.end()
	}
}

// end has the system forget what was read.
func (k *cacheKeeper) end() {
	for _, f := range k.cold {
		forget(f)
	}
}
