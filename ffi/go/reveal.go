package ceiba

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// deepest is how deep a configuration may be nested: one that holds itself has no end.
const deepest = 100

var (
	secretType = reflect.TypeFor[Secret]()
	asJSON     = reflect.TypeFor[json.Marshaler]()
	asText     = reflect.TypeFor[encoding.TextMarshaler]()
)

// section is a part of a configuration whose fields have secrets in them.
type section interface{ fields() any }

// sections are the types of them: one that embeds them is none, though it has their methods.
var sections = map[reflect.Type]bool{
	reflect.TypeFor[Config]():         true,
	reflect.TypeFor[KapokMQ]():        true,
	reflect.TypeFor[MNS]():            true,
	reflect.TypeFor[OutboxStrategy](): true,
}

var (
	errDeep   = errors.New("it is nested too deep, or holds itself")
	errHidden = errors.New("a MarshalJSON of its own hides the secret in it")
)

// revealed is what marshals as the value does, but with the secrets in it: these hide themselves from
// encoding/json, and only the library's configuration may show them.
func revealed(v reflect.Value, depth int) (any, error) {
	if !v.IsValid() {
		return nil, nil
	}
	if depth > deepest {
		return nil, errDeep
	}
	if v.Type() == secretType {
		return v.Interface().(Secret).plain(), nil
	}
	if sections[v.Type()] {
		return revealed(reflect.ValueOf(v.Interface().(section).fields()), depth+1)
	}
	kind := v.Kind()
	if kind == reflect.Interface || kind == reflect.Pointer {
		if v.IsNil() {
			return nil, nil
		}
		if element := v.Elem(); kind == reflect.Interface || ours(element.Type()) || !marshals(v.Type()) {
			return revealed(element, depth+1)
		}
	}
	if v.CanAddr() && marshals(reflect.PointerTo(v.Type())) {
		v = v.Addr()
	}
	switch {
	case marshals(v.Type()):
		text, err := json.Marshal(v.Interface())
		if err == nil && bytes.Contains(text, []byte(`"`+stars+`"`)) {
			err = errHidden
		}
		return json.RawMessage(text), err
	case kind == reflect.Struct:
		object := map[string]any{}
		return object, revealFields(object, v, depth)
	case kind == reflect.Map && v.Type().Key().Kind() == reflect.String && !marshals(v.Type().Key()) && !v.IsNil():
		object := map[string]any{}
		for entry := v.MapRange(); entry.Next(); {
			value, err := revealed(entry.Value(), depth+1)
			if err != nil {
				return nil, err
			}
			object[entry.Key().String()] = value
		}
		return object, nil
	case kind == reflect.Array || kind == reflect.Slice && !v.IsNil() && v.Type().Elem().Kind() != reflect.Uint8:
		list := make([]any, v.Len())
		for i := range list {
			value, err := revealed(v.Index(i), depth+1)
			if err != nil {
				return nil, err
			}
			list[i] = value
		}
		return list, nil
	}
	return v.Interface(), nil
}

func ours(t reflect.Type) bool { return t == secretType || sections[t] }

func marshals(t reflect.Type) bool { return t.Implements(asJSON) || t.Implements(asText) }

// revealFields adds the fields of a struct to an object, by the rules of encoding/json for its tags.
func revealFields(object map[string]any, v reflect.Value, depth int) error {
	if depth > deepest {
		return errDeep
	}
	var embedded []reflect.Value
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.Tag.Get("json") == "-" {
			continue
		}
		if field.Anonymous && name == "" {
			inner := value
			if inner.Kind() == reflect.Pointer && !inner.IsNil() && field.IsExported() {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct && !ours(inner.Type()) && !marshals(inner.Type()) {
				embedded = append(embedded, inner)
				continue
			}
			if inner.Kind() == reflect.Pointer && inner.Type().Elem().Kind() == reflect.Struct {
				continue
			}
		}
		if !field.IsExported() {
			continue
		}
		if name == "" {
			name = field.Name
		}
		if has(options, "omitempty") && empty(value) || has(options, "omitzero") && value.IsZero() {
			continue
		}
		inner, err := revealed(value, depth+1)
		if err != nil {
			return err
		}
		if has(options, "string") {
			inner = quoted(inner)
		}
		object[name] = inner
	}
	// The outer field wins over one of the same name in an embedded struct.
	for _, inner := range embedded {
		below := map[string]any{}
		if err := revealFields(below, inner, depth+1); err != nil {
			return err
		}
		for name, value := range below {
			if _, taken := object[name]; !taken {
				object[name] = value
			}
		}
	}
	return nil
}

func has(options, option string) bool { return strings.Contains(","+options+",", ","+option+",") }

func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// quoted is a number or a truth value as a text.
func quoted(value any) any {
	switch reflect.ValueOf(value).Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return fmt.Sprint(value)
	}
	return value
}
