// Package crash finds out what a crash can leave of a file that a program was
// changing.
//
// A [File] is a file in memory with ReadAt, WriteAt, Truncate and Sync. It
// records what is done to it, and [File.States] then gives the contents that a
// power cut, at any moment, could have left:
//
//	f := crash.New(old)
//	change(f)
//	f.Mark() // from here on the change must be there
//	count := f.States(nil, func(s *crash.State) bool {
//		if err := check(s, s.Size(), s.Marks); err != nil {
//			t.Errorf("%v: %v", s, err)
//		}
//		return true
//	})
//
// # What is assumed of the disk
//
//   - What was written before a Sync that succeeded is there. Sync is the only
//     ordering: of what was written since, anything may be missing.
//   - A sector of 512 bytes is written whole or not at all. One that was written
//     several times holds any of its versions, each as the program saw it: a later
//     version carries the earlier writes to the same sector.
//   - Truncate, and a write that makes the file longer, change the size on their
//     own: the size may be there without the bytes, which then read as zero.
//   - A sector that was never written reads as zero, never as something else.
//   - After a Sync that failed, no later one is believed: Linux reports an error
//     once and drops the pages.
//
// # Which states
//
// A cut is the moment after an operation. At each cut, what was not yet synced is
// made of pieces: the sectors of the writes, and the changes of size. The states
// of a cut are: none of the pieces; all; each piece alone; all but each piece; each
// operation alone; all but each operation; and a number of random choices.
//
// A File can also make operations fail ([File.Fail]) and refuse them
// ([File.Guard]).
package crash
