package piece

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ipfs/go-cid"
)

// put appends a block, also one that is held already, unless Once forbids it.
// data is not kept. If it fails, nothing is appended, and the next put starts
// where this one did.
// The block is not hashed: whoever received it has done so.
func (p *Partial) put(c cid.Cid, data []byte) error {
	if !c.Defined() {
		return errors.New("append block: no CID")
	}
	if len(data) > MaxBlockSize || c.ByteLen() > maxCIDSize {
		return fmt.Errorf("append block %s: %d bytes and a CID of %d, at most %d and %d are allowed",
			c, len(data), c.ByteLen(), MaxBlockSize, maxCIDSize)
	}
	p.write.Lock()
	defer p.write.Unlock()
	if p.failed != nil {
		return fmt.Errorf("append block %s: %w", c, p.failed)
	}
	if err := p.mend(); err != nil {
		return fmt.Errorf("append block %s: %w", c, err)
	}
	if p.repeated(c) {
		return nil
	}
	head, err := writeFrame(p.file, &p.scratch, p.end, c, data)
	if err != nil {
		p.torn = true
		// The file is as before or, if that fails too, mended by the next put.
		return fmt.Errorf("append block %s to %s: %w", c, p.path, errors.Join(err, p.mend()))
	}
	if err := p.held.add(c.Hash(), p.end); err != nil {
		p.torn = true
		return fmt.Errorf("append block %s to %s: %w", c, p.path, errors.Join(err, p.mend()))
	}
	p.end += int64(head) + int64(len(data))
	p.written += uint64(len(data))
	p.blocks++
	return nil
}

// Once says that from now on a block is not appended again if it was appended
// when Written was since or more: a transfer that began then counts it once,
// however often it comes. What was held before is appended anew.
func (p *Partial) Once(since uint64) error {
	p.write.Lock()
	defer p.write.Unlock()
	if since > p.written {
		return fmt.Errorf("%s holds %d bytes, not %d", p.path, p.written, since)
	}
	at, written := p.end, p.written
	if since < written {
		at, written = int64(len(headerFor(p.root))), 0
	}
	walker := frameWalker{r: p.file, end: p.end}
	for written < since {
		f, err := walker.next(at)
		if err != nil {
			return fmt.Errorf("look through %s: %w", p.path, err)
		}
		at, written = f.end(), written+uint64(f.size)
	}
	p.once = at
	return nil
}

// repeated reports whether the block of c must not be appended again. A block
// whose place cannot be read is appended: no byte is lost for it.
func (p *Partial) repeated(c cid.Cid) bool {
	if p.once == 0 {
		return false
	}
	f, held, err := p.held.find(c.Hash())
	return err == nil && held && f.at >= p.once
}

// mend removes what a failed write left behind end. Without that, bytes of a
// half-written block could pass for sections at the next open.
func (p *Partial) mend() error {
	if !p.torn {
		return nil
	}
	if err := p.file.Truncate(p.end); err != nil {
		return fmt.Errorf("cut off a half-written block: %w", err)
	}
	p.torn = false
	return nil
}

// Sync waits until everything appended so far is on disk, and returns its
// Written. After an error nobody knows what the disk holds: every later
// write and Sync fails too, and Close cuts the file back to the last Sync that
// succeeded.
func (p *Partial) Sync() (uint64, error) {
	p.syncing.Lock()
	defer p.syncing.Unlock()
	p.write.Lock()
	end, written, failed := p.end, p.written, p.failed
	p.write.Unlock()
	if failed != nil {
		return p.promised, fmt.Errorf("sync %s: %w", p.path, failed)
	}
	if end == p.durable {
		return p.promised, nil
	}
	if err := p.file.Sync(); err != nil {
		p.write.Lock()
		if p.failed == nil {
			p.failed = fmt.Errorf("%w: %w", errUnsynced, err)
		}
		p.write.Unlock()
		return p.promised, fmt.Errorf("sync %s: %w", p.path, err)
	}
	p.durable, p.promised = end, written
	p.mark.set(end)
	return written, nil
}

// errUnsynced says that a sync failed. The kernel may have dropped the pages and
// reports that only once.
var errUnsynced = errors.New("an earlier sync failed; open the file again")

// Close syncs and closes the file. It can be opened again, to continue.
func (p *Partial) Close() error {
	_, syncErr := p.Sync()
	p.syncing.Lock()
	defer p.syncing.Unlock()
	p.write.Lock()
	defer p.write.Unlock()
	if errors.Is(p.failed, errClosed) {
		return nil
	}
	if p.failed != nil {
		p.end, p.torn = p.durable, true
	}
	err := errors.Join(syncErr, p.mend())
	p.failed = errClosed
	return errors.Join(err, p.lock.Close())
}

// Discard closes the file and removes it and its mark, for when what it holds
// has been put elsewhere.
func (p *Partial) Discard() error {
	return p.leave(func() error { return os.Remove(p.path) })
}

// MoveTo syncs and closes the file and gives it the name dst, in the same file
// system, as the finished CAR. Without overwrite it returns ErrOutputExists,
// and leaves the Partial open, if dst exists.
func (p *Partial) MoveTo(dst string, overwrite bool) error {
	if _, err := p.Sync(); err != nil {
		return err
	}
	return p.leave(func() error { return publish(p.path, dst, overwrite) })
}

// leave closes the file for good after act has taken it from its path. The lock
// is held until then: later the path may be another transfer's.
func (p *Partial) leave(act func() error) error {
	p.syncing.Lock()
	defer p.syncing.Unlock()
	p.write.Lock()
	defer p.write.Unlock()
	if p.failed != nil {
		return fmt.Errorf("%s: %w", p.path, p.failed)
	}
	if err := act(); err != nil {
		return err
	}
	p.failed = errClosed
	return errors.Join(p.mark.remove(), p.lock.Close())
}

// recover finds the end of what is whole in a file of size bytes, cuts off the
// rest, fills the index, and makes sure that all of it is on disk.
func (p *Partial) recover(start, size int64) error {
	trusted := p.mark.get()
	if trusted < start || trusted > size {
		trusted = start
	}
	end := size
	var bad *SectionError
	err := hashFrames(context.Background(), &frameWalker{r: p.file, end: size}, trusted, nil)
	if errors.As(err, &bad) {
		end = bad.Offset
	} else if err != nil {
		return err
	}
	if end, err = p.index(start, end); err != nil {
		return err
	}
	if end < size {
		if err := p.mark.remove(); err != nil {
			return err
		}
		if err := p.file.Truncate(end); err != nil {
			return fmt.Errorf("cut off a torn tail: %w", err)
		}
	}
	if end == size && end == trusted {
		p.durable, p.promised = end, p.written
	}
	_, err = p.Sync()
	return err
}

// index reads the heads of the sections in [start, end) into memory. It
// returns the end of the last whole one.
func (p *Partial) index(start, end int64) (int64, error) {
	walker := frameWalker{r: p.file, end: end}
	p.end = start
	for {
		f, err := walker.next(p.end)
		var bad *SectionError
		if errors.Is(err, io.EOF) || errors.As(err, &bad) {
			return p.end, nil
		}
		if err != nil {
			return 0, err
		}
		if err := p.held.add(f.cid.Hash(), f.at); err != nil {
			return 0, err
		}
		p.end = f.end()
		p.written += uint64(f.size)
		p.blocks++
	}
}
