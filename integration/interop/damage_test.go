package interop

import (
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"pgregory.net/rapid"
)

// damage returns n, a map, with one thing wrong in it or in a map inside it.
func damage(t *rapid.T, n datamodel.Node) datamodel.Node {
	keys, values := entries(t, n)
	at := rapid.IntRange(0, len(keys)-1).Draw(t, "at")
	switch how := rapid.IntRange(0, 3).Draw(t, "how"); {
	case values[at].Kind() == datamodel.Kind_Map && values[at].Length() > 0 && how == 0:
		values[at] = damage(t, values[at])
	case how <= 1:
		keys, values = append(keys[:at:at], keys[at+1:]...), append(values[:at:at], values[at+1:]...)
	case how == 2:
		keys, values = append(keys, "Zusatz"), append(values, basicnode.NewInt(1))
	default:
		values[at] = wrongValue(t)
	}
	return mapOf(t, keys, values)
}

// damageTuple returns n, a list, with one thing wrong in it or in a list inside it.
func damageTuple(t *rapid.T, n datamodel.Node) datamodel.Node {
	values := items(t, n)
	at := rapid.IntRange(0, len(values)-1).Draw(t, "at")
	switch how := rapid.IntRange(0, 3).Draw(t, "how"); {
	case values[at].Kind() == datamodel.Kind_List && values[at].Length() > 0 && how == 0:
		values[at] = damageTuple(t, values[at])
	case how <= 1:
		values = append(values[:at:at], values[at+1:]...)
	case how == 2:
		values = append(values, basicnode.NewInt(1))
	default:
		values[at] = wrongValue(t)
	}
	return listOf(t, values)
}

// wrongValue is of another kind than most fields are.
func wrongValue(t *rapid.T) datamodel.Node {
	return rapid.SampledFrom([]datamodel.Node{
		basicnode.NewInt(-1), basicnode.NewString("x"), basicnode.NewBytes([]byte{7}), basicnode.NewBool(true), datamodel.Null,
	}).Draw(t, "value")
}

func items(t rapid.TB, n datamodel.Node) (values []datamodel.Node) {
	for it := n.ListIterator(); !it.Done(); {
		_, v, err := it.Next()
		fatal(t, err)
		values = append(values, v)
	}
	return values
}

func listOf(t rapid.TB, values []datamodel.Node) datamodel.Node {
	b := basicnode.Prototype.List.NewBuilder()
	l, err := b.BeginList(int64(len(values)))
	fatal(t, err)
	for _, v := range values {
		fatal(t, l.AssembleValue().AssignNode(v))
	}
	fatal(t, l.Finish())
	return b.Build()
}

func entries(t rapid.TB, n datamodel.Node) (keys []string, values []datamodel.Node) {
	for it := n.MapIterator(); !it.Done(); {
		k, v, err := it.Next()
		fatal(t, err)
		key, err := k.AsString()
		fatal(t, err)
		keys, values = append(keys, key), append(values, v)
	}
	return keys, values
}

func mapOf(t rapid.TB, keys []string, values []datamodel.Node) datamodel.Node {
	b := basicnode.Prototype.Map.NewBuilder()
	m, err := b.BeginMap(int64(len(keys)))
	fatal(t, err)
	for i, key := range keys {
		a, err := m.AssembleEntry(key)
		fatal(t, err)
		fatal(t, a.AssignNode(values[i]))
	}
	fatal(t, m.Finish())
	return b.Build()
}
