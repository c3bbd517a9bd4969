package plan

import (
	"strconv"
	"time"
)

// timeForms are the ways in which tools, and people, write a time. Those without
// a zone are local.
var timeForms = []string{
	time.RFC3339Nano, time.RFC3339, "2006-01-02T15:04:05.999999", "2006-01-02T15:04:05", "2006-01-02 15:04:05",
	"2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02", "20060102150405", "20060102-150405", "2006.01.02.15.04.05", "2006-01-02-15-04-05", "2006-01-02_15-04-05",
}

// ParseTime reads a time as people and tools write it: RFC 3339, a local date
// with or without the time of day, or seconds since 1970.
func ParseTime(s string) (time.Time, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && len(s) >= 9 && len(s) <= 10 {
		return time.Unix(n, 0), true
	}
	for _, form := range timeForms {
		if t, err := time.ParseInLocation(form, s, time.Local); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// parseMoment reads a time that someone asks for: a date alone means the end of
// that day.
func parseMoment(s string) (time.Time, bool) {
	t, ok := ParseTime(s)
	if _, err := time.Parse("2006-01-02", s); err == nil {
		t = t.AddDate(0, 0, 1).Add(-time.Nanosecond)
	}
	return t, ok
}
