package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/urfave/cli/v3"

	"github.com/tollgraph/tollgraph/piece"
	market "github.com/tollgraph/tollgraph/retrievalmarket"
	"github.com/tollgraph/tollgraph/voucher"
)

func (a *app) storeCommand() *cli.Command {
	return &cli.Command{
		Name:   "store",
		Usage:  "look at what this repo received and keeps, and remove it",
		Action: func(_ context.Context, cmd *cli.Command) error { return group(cmd) },
		Commands: []*cli.Command{
			{Name: "list", Usage: "list what is kept, the latest first", Action: a.listStore},
			{Name: "rm", Usage: "remove what was received below roots; it has to be bought again", ArgsUsage: "CID...", Action: a.removeStored, Flags: []cli.Flag{
				&cli.BoolFlag{Name: "all", Usage: "remove everything that no deal needs any more"},
			}},
		},
	}
}

// holding is what the repo keeps of one root.
type holding struct {
	CID      string    `json:"cid"`
	Bytes    int64     `json:"bytes"` // on disk
	Path     string    `json:"path"`
	Received time.Time `json:"received"` // the latest of it
	Removed  bool      `json:"removed,omitempty"`
	Kept     string    `json:"kept,omitempty"` // why it was not removed
}

// holdings returns what the repo at dir keeps, the latest first.
func holdings(dir string) ([]holding, error) {
	kept := blocks{dir: filepath.Join(dir, "blocks")}
	entries, err := os.ReadDir(kept.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return []holding{}, nil
	}
	if err != nil {
		return nil, err
	}
	all := []holding{}
	for _, e := range entries {
		root, err := cid.Decode(strings.TrimSuffix(e.Name(), ".car"))
		if err != nil || kept.path(root) != filepath.Join(kept.dir, e.Name()) {
			continue // a mark, or the user's own
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, holding{CID: root.String(), Bytes: info.Size(), Path: kept.path(root), Received: info.ModTime().UTC()})
	}
	slices.SortFunc(all, func(a, b holding) int { return cmp.Or(b.Received.Compare(a.Received), strings.Compare(a.CID, b.CID)) })
	return all, nil
}

func (a *app) listStore(_ context.Context, cmd *cli.Command) error {
	if cmd.Args().Present() {
		return usagef("store list takes no arguments; to remove something: tollgraph store rm %s", cmd.Args().First())
	}
	all, err := holdings(cmd.String("repo"))
	if err != nil {
		return err
	}
	if cmd.Bool("json") {
		return a.printJSON(all)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CID\tSIZE\tRECEIVED")
	for _, h := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\n", h.CID, voucher.Bytes(h.Bytes).IEC(), h.Received.Format(time.RFC3339))
	}
	return w.Flush()
}

func (a *app) removeStored(ctx context.Context, cmd *cli.Command) (err error) {
	dir, roots := cmd.String("repo"), cmd.Args().Slice()
	if cmd.Bool("all") == (len(roots) > 0) {
		return usagef("store rm takes CIDs, or --all for everything that no deal needs any more; tollgraph store list shows them")
	}
	if cmd.Bool("all") {
		all, err := holdings(dir)
		if err != nil {
			return err
		}
		for _, h := range all {
			roots = append(roots, h.CID)
		}
	}
	remove, done, err := a.remover(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	removed, failed := []holding{}, error(nil)
	for _, root := range roots {
		h, err := remove(ctx, root)
		switch {
		case err == nil:
			h.Removed = true
			a.sayf("removed %s, %s", h.CID, voucher.Bytes(h.Bytes).IEC())
		case cmd.Bool("all") && ctx.Err() == nil:
			h = holding{CID: root, Kept: err.Error()}
			a.sayf("kept %v", err)
		default:
			failed = errors.Join(failed, err)
			continue
		}
		removed = append(removed, h)
	}
	if cmd.Bool("json") {
		err = a.printJSON(removed)
	}
	return errors.Join(failed, err)
}

// remover returns what removes one root: the node that runs on the repo at dir, or
// else a node of its own, until done is called.
func (a *app) remover(ctx context.Context, dir string) (remove func(context.Context, string) (holding, error), done func() error, err error) {
	r, err := dial(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	if r != nil {
		return func(ctx context.Context, root string) (h holding, err error) {
			return h, r.call(ctx, http.MethodDelete, "/v1/store/"+url.PathEscape(root), nil, &h)
		}, func() error { return nil }, nil
	}
	n, err := startNode(ctx, dir, nil)
	if err != nil {
		return nil, nil, err
	}
	b, err := newBuyer(ctx, n, market.ClientConfig{})
	if err != nil {
		return nil, nil, errors.Join(err, n.Close())
	}
	return newOffice(a, n, b, nil).remove, func() error { return errors.Join(b.Close(), n.Close()) }, nil
}

// remove removes what was received of the root that a user names, unless a deal
// needs it.
func (o *office) remove(ctx context.Context, name string) (h holding, err error) {
	t, err := parseTarget(name)
	if err != nil {
		return h, err
	}
	if t.path != "" {
		return h, usagef("%s: what is below a root is kept together; name the root: %s", name, t.root)
	}
	if o.buyer == nil {
		return h, errOnlySells
	}
	h = holding{CID: t.root.String(), Path: o.buyer.blocks.path(t.root)}
	if err := o.notWaitedFor(ctx, t.root); err != nil {
		return h, err
	}
	err = o.buyer.Drop(ctx, t.root, func() (err error) {
		h.Bytes, err = piece.RemovePartial(h.Path)
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = &exitError{exitNotFound, fmt.Errorf("%s is not in the repo; tollgraph store list shows what is", h.CID)}
	case errors.Is(err, market.ErrOpenDeal):
		err = fmt.Errorf("%w; go on with it, or give it up with tollgraph deals cancel", err)
	}
	return h, err
}

// notWaitedFor is an error if something below root is yet to be written out.
func (o *office) notWaitedFor(ctx context.Context, root cid.Cid) error {
	ids, err := o.shelf.ids(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		kept, found, err := o.shelf.order(ctx, id)
		if err != nil {
			return err
		}
		if t, err := parseTarget(kept.CID); found && err == nil && t.root == root {
			return fmt.Errorf("%s: deal %d, to %s, is not done yet: wait for it, or give it up with tollgraph deals cancel %d", root, id, kept.Output, id)
		}
	}
	return nil
}

func (o *office) getStore(context.Context, *http.Request) (any, error) {
	return holdings(o.node.repo.dir)
}

func (o *office) deleteStore(ctx context.Context, r *http.Request) (any, error) {
	return o.remove(ctx, r.PathValue("cid"))
}
