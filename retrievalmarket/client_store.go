package retrievalmarket

import (
	"fmt"
	"io"
	"math"

	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"

	"github.com/tollgraph/tollgraph/selectors"
)

// storeNote says that a block which arrived could not be kept.
type storeNote struct{ err error }

// listenEvery is how many bytes are listened for at least.
const listenEvery = 64 << 10

// linkSystem is the deal's blocks for a channel. A block that cannot be kept,
// as on a full disk, suspends the deal with that reason: another channel would
// end in the same way.
func (d *clientDeal) linkSystem() ipld.LinkSystem {
	ls := withUnixFS(d.store.LinkSystem())
	open := ls.StorageWriteOpener
	ls.StorageWriteOpener = func(lc linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		w, commit, err := open(lc)
		if err != nil {
			d.inbox.post(storeNote{err})
			return nil, nil, err
		}
		return w, func(l datamodel.Link) error {
			err := commit(l)
			if err != nil {
				d.inbox.post(storeNote{err})
			}
			d.hear()
			return err
		}, nil
	}
	return ls
}

// arrivedNote says that so much has come that there may be something to pay.
type arrivedNote struct{}

// hear tells the deal, once, when as much has come as it listens for. What data-transfer
// says of progress comes later: it gathers that.
func (d *clientDeal) hear() {
	if at := d.listens.Load(); d.store.Written() >= at && d.listens.CompareAndSwap(at, math.MaxUint64) {
		d.inbox.post(arrivedNote{})
	}
}

// listen sets what hear waits for: where the purse looks again, and where it has looked
// in vain, as the budget or the end of what is expected may keep it, an interval later.
func (d *clientDeal) listen() {
	at := d.purse.Look(d.deal.Account.Move(d.seen))
	if at <= d.seen {
		at = d.seen.Add(max(d.deal.Account.Terms.Interval, listenEvery))
	}
	d.listens.Store(uint64(at.Add(Bytes(d.rec.Start)).Sub(Bytes(d.doubles.Load()))))
	d.hear()
}

// withUnixFS teaches a link system of the caller's to interpret UnixFS, within
// bounds: what it reads may be a stranger's.
func withUnixFS(ls ipld.LinkSystem) ipld.LinkSystem {
	selectors.AddReifiers(&ls)
	return ls
}

// notKept suspends the deal: it goes on once there is room.
func (d *clientDeal) notKept(err error) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: keep what arrived: %w", ErrSuspended, err)
	}
}
