package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/ipfs/go-datastore"
)

// A StateLog is a datastore in one append-only file: a batch is one write, and
// when most of the file is out of date it is written anew. It keeps the position
// of every value in memory. It is made to stand behind a WriteBehind and is not
// synced to disk except by Sync and Close: after a power failure the end of the
// file may be lost, which is found by checksum and cut off.
//
// Format: an 8-byte magic, then records of
//
//	crc32c (4 bytes) | key length (4) | value length + 1, or 0 to delete (4) | key | value
//
// with little-endian numbers, the checksum covering what follows it.
//
// It may be used concurrently, by one process.
type StateLog struct {
	path    string
	compact int64 // size below which the file is not written anew

	mu    sync.Mutex // guards the fields below
	file  *os.File
	size  int64 // of the file
	live  int64 // bytes of records that are up to date
	where map[datastore.Key]span
}

// span is where a value lies in the file.
type span struct {
	off  int64
	size int
}

var _ datastore.Batching = (*StateLog)(nil)

const (
	logMagic     = "tgstate1"
	logHeader    = 12
	maxLogKey    = 4 << 10
	maxLogValue  = 64 << 20
	compactAbove = 4 << 20 // bytes; smaller files are not worth compacting
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// OpenStateLog opens or creates the file at path, for the owner only. A damaged
// end is cut off.
func OpenStateLog(path string) (*StateLog, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state log: %w", err)
	}
	l := &StateLog{path: path, compact: compactAbove, file: f, where: make(map[datastore.Key]span)}
	if err := l.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("state log %s: %w", path, err), f.Close())
	}
	return l, nil
}

// load reads the file and cuts off what is not a whole record.
func (l *StateLog) load() error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	magic := make([]byte, len(logMagic))
	if _, err := io.ReadFull(l.file, magic); err != nil && info.Size() < int64(len(logMagic)) {
		return l.reset() // new, or its creation was cut short
	}
	if string(magic) != logMagic {
		return errors.New("not a state log, or of another version: move it away")
	}
	l.size = int64(len(logMagic))
	for {
		n, err := l.loadRecord(info.Size() - l.size)
		if err != nil {
			break
		}
		l.size += n
	}
	return l.file.Truncate(l.size)
}

func (l *StateLog) reset() error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	if _, err := l.file.WriteAt([]byte(logMagic), 0); err != nil {
		return err
	}
	l.size = int64(len(logMagic))
	return nil
}

// loadRecord reads the record at l.size, of which at most rest bytes can exist,
// and returns its length.
func (l *StateLog) loadRecord(rest int64) (int64, error) {
	var head [logHeader]byte
	if _, err := l.file.ReadAt(head[:], l.size); err != nil {
		return 0, err
	}
	klen, vlen := binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[8:])
	body := int64(klen) + int64(max(vlen, 1)-1)
	if klen > maxLogKey || vlen > maxLogValue+1 || logHeader+body > rest {
		return 0, io.ErrUnexpectedEOF
	}
	buf := make([]byte, logHeader+body)
	if _, err := l.file.ReadAt(buf, l.size); err != nil {
		return 0, err
	}
	if crc32.Checksum(buf[4:], castagnoli) != binary.LittleEndian.Uint32(buf) {
		return 0, io.ErrUnexpectedEOF
	}
	l.index(datastore.RawKey(string(buf[logHeader:logHeader+klen])), vlen, l.size, int(klen))
	return int64(len(buf)), nil
}

// index notes the record at off.
func (l *StateLog) index(k datastore.Key, vlen uint32, off int64, klen int) {
	if old, has := l.where[k]; has {
		l.live -= int64(logHeader + klen + old.size)
		delete(l.where, k)
	}
	if vlen != 0 {
		s := span{off + int64(logHeader+klen), int(vlen - 1)}
		l.where[k] = s
		l.live += int64(logHeader + klen + s.size)
	}
}

// change is one entry of a batch; a nil value deletes.
type change struct {
	key   datastore.Key
	value []byte
}

// appendRecord adds the record of c to buf.
func appendRecord(buf []byte, c change) []byte {
	start, key := len(buf), c.key.String()
	buf = append(buf, 0, 0, 0, 0)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(key)))
	vlen := uint32(0)
	if c.value != nil {
		vlen = uint32(len(c.value)) + 1
	}
	buf = binary.LittleEndian.AppendUint32(buf, vlen)
	buf = append(append(buf, key...), c.value...)
	binary.LittleEndian.PutUint32(buf[start:], crc32.Checksum(buf[start+4:], castagnoli))
	return buf
}

// apply writes changes in one go.
func (l *StateLog) apply(cs []change) error {
	var buf []byte
	offs := make([]int64, len(cs))
	for i, c := range cs {
		if len(c.key.String()) > maxLogKey || len(c.value) > maxLogValue {
			return fmt.Errorf("state log: record %.64s is too large: %d bytes", c.key, len(c.value))
		}
		offs[i] = int64(len(buf))
		buf = appendRecord(buf, c)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return ErrStoreClosed
	}
	if _, err := l.file.WriteAt(buf, l.size); err != nil {
		return fmt.Errorf("state log: %w", err)
	}
	for i, c := range cs {
		vlen := uint32(0)
		if c.value != nil {
			vlen = uint32(len(c.value)) + 1
		}
		l.index(c.key, vlen, l.size+offs[i], len(c.key.String()))
	}
	l.size += int64(len(buf))
	if l.size > l.compact && l.size > 3*l.live {
		return l.rewrite()
	}
	return nil
}

// rewrite writes what is up to date to a new file and puts it in place of the
// old one. It is called with mu held.
func (l *StateLog) rewrite() error {
	f, err := os.CreateTemp(filepath.Dir(l.path), filepath.Base(l.path)+".new-*")
	if err != nil {
		return fmt.Errorf("compact state log: %w", err)
	}
	where, size, err := l.copyLive(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), l.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("compact state log: %w", err), f.Close(), os.Remove(f.Name()))
	}
	old := l.file
	l.file, l.where, l.size = f, where, size
	l.live = size - int64(len(logMagic))
	return old.Close()
}

// copyLive writes all values to f.
func (l *StateLog) copyLive(f *os.File) (map[datastore.Key]span, int64, error) {
	where := make(map[datastore.Key]span, len(l.where))
	size := int64(len(logMagic))
	if _, err := f.WriteAt([]byte(logMagic), 0); err != nil {
		return nil, 0, err
	}
	for k, s := range l.where {
		v, err := l.read(s)
		if err != nil {
			return nil, 0, err
		}
		rec := appendRecord(nil, change{k, v})
		if _, err := f.WriteAt(rec, size); err != nil {
			return nil, 0, err
		}
		where[k] = span{size + int64(len(rec)-s.size), s.size}
		size += int64(len(rec))
	}
	return where, size, nil
}

// read returns the value at s. It is called with mu held.
func (l *StateLog) read(s span) ([]byte, error) {
	v := make([]byte, s.size)
	_, err := l.file.ReadAt(v, s.off)
	if err != nil && !(errors.Is(err, io.EOF) && s.size == 0) {
		return nil, fmt.Errorf("state log: %w", err)
	}
	return v, nil
}
