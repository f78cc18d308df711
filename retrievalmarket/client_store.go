package retrievalmarket

import (
	"fmt"
	"io"

	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"

	"github.com/tollgraph/tollgraph/selectors"
)

// storeNote says that a block which arrived could not be kept.
type storeNote struct{ err error }

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
			return err
		}, nil
	}
	return ls
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
