package main

import (
	"errors"
	"strconv"
	"strings"
)

// span is a range of a file's bytes as trustless gateways write it: from and to
// are both included, negative numbers count from the end, and a nil to is the
// last byte.
type span struct {
	from int64
	to   *int64
}

var errSpan = errors.New("not a range of bytes: write FROM:TO, such as 0:1023, 1024:* or -512:*")

// parseSpan reads FROM:TO.
func parseSpan(s string) (*span, error) {
	first, last, ok := strings.Cut(s, ":")
	from, err := strconv.ParseInt(first, 10, 64)
	if !ok || err != nil {
		return nil, errSpan
	}
	if last == "*" {
		return &span{from, nil}, nil
	}
	to, err := strconv.ParseInt(last, 10, 64)
	if err != nil {
		return nil, errSpan
	}
	return &span{from, &to}, nil
}

// in returns the bytes [from, to) that s is in a file of size bytes.
func (s *span) in(size int64) (from, to int64) {
	last := int64(-1)
	if s.to != nil {
		last = *s.to
	}
	from = s.from
	if from < 0 {
		from += size
	}
	if last < 0 {
		last += size
	}
	from = min(max(from, 0), size)
	return from, max(min(last, size-1)+1, from)
}
