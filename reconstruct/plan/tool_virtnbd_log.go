package plan

import (
	"bufio"
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// A virtnbdLog is what a log of virtnbdbackup says of the increment that it is
// about: newer versions leave changed ranges out that read as zero, and only their
// log tells.
type virtnbdLog struct {
	id         string
	checkpoint string
	sparse     []string // the lines that tell of ranges that were left out
}

var (
	logCheckpoint = regexp.MustCompile(`Using checkpoint name: \[([^\]]+)\]`)
	logSparse     = regexp.MustCompile(`Detected ([1-9]\d*) bytes .*sparse blocks for current bitmap`)
)

// virtnbdLogs reads the logs in a folder.
func (s *scan) virtnbdLogs(dir string) []virtnbdLog {
	var all []virtnbdLog
	for _, it := range s.inDir(dir) {
		if !strings.HasPrefix(it.name, "backup.") || !strings.HasSuffix(it.name, ".log") || it.holdsDisk() {
			continue
		}
		it.used = true
		if b, err := s.record(it.entry); err == nil {
			all = append(all, parseVirtnbdLog(it.ID(), b))
		}
	}
	return all
}

func parseVirtnbdLog(id string, b []byte) virtnbdLog {
	l := virtnbdLog{id: id}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		if m := logCheckpoint.FindStringSubmatch(lines.Text()); m != nil {
			l.checkpoint = m[1]
		}
		if logSparse.MatchString(lines.Text()) {
			l.sparse = append(l.sparse, lines.Text())
		}
	}
	return l
}

// judgeLogs doubts the increments of which a log says that ranges were left out.
// What no log speaks of cannot be known.
func (s *scan) judgeLogs(all []*member) {
	logs := map[string][]virtnbdLog{}
	for _, m := range all {
		if _, ok := logs[m.dir]; !ok {
			logs[m.dir] = s.virtnbdLogs(m.dir)
		}
		m.lossless = m.kind == Incremental && m.judgeLog(logs[m.dir])
	}
}

// judgeLog reports that a log is about the member, and says nothing against it.
func (m *member) judgeLog(logs []virtnbdLog) bool {
	found := false
	for _, l := range logs {
		if l.checkpoint != m.point {
			continue
		}
		for _, line := range l.sparse {
			if n := logSparse.FindStringSubmatch(line)[1]; strings.Contains(line, "["+m.disk+"]") {
				m.lossy = fmt.Sprintf("%s says that %s bytes that were zeroed were left out of it", l.id, n)
			}
		}
		found = true
	}
	return found && m.lossy == ""
}
