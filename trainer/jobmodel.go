package trainer

import (
	"fmt"
	"maps"
	"slices"

	"github.com/goccy/go-yaml"

	"github.com/musterml/muster/trainer/nn"
)

// Expand is the same model as a list of layers.
func (m Model) Expand() (Model, error) {
	expanded, err := nn.Model(m).Expand()
	return Model(expanded), err
}

// UnmarshalYAML takes name, layers and loss; every other key is an option of the model by name. Of such a
// model, layers is an option too, if it has one: that of gpt is a number.
func (m *Model) UnmarshalYAML(b []byte) error {
	fields := map[string]any{}
	if err := yaml.Unmarshal(b, &fields); err != nil {
		return err
	}
	*m = Model{}
	if layers, ok := fields["layers"]; ok {
		_, list := layers.([]any)
		_, named := fields["name"]
		if list || !named {
			var err error
			if m.Layers, err = nn.ParseLayers(layers); err != nil {
				return err
			}
			delete(fields, "layers")
		}
	}
	for key, to := range map[string]*string{"name": &m.Name, "loss": (*string)(&m.Loss)} {
		if v, ok := fields[key]; ok {
			text, isText := v.(string)
			if !isText {
				return fmt.Errorf("model.%s is %v: write a word", key, v)
			}
			*to = text
			delete(fields, key)
		}
	}
	if len(fields) > 0 {
		m.Options = fields
	}
	return nil
}

// MarshalYAML is the inverse, with the options in order.
func (m Model) MarshalYAML() ([]byte, error) {
	var fields yaml.MapSlice
	if m.Name != "" {
		fields = append(fields, yaml.MapItem{Key: "name", Value: m.Name})
	}
	for _, k := range slices.Sorted(maps.Keys(m.Options)) {
		fields = append(fields, yaml.MapItem{Key: k, Value: m.Options[k]})
	}
	if len(m.Layers) > 0 {
		fields = append(fields, yaml.MapItem{Key: "layers", Value: nn.FormatLayers(m.Layers)})
	}
	if m.Loss != "" {
		fields = append(fields, yaml.MapItem{Key: "loss", Value: string(m.Loss)})
	}
	return yaml.Marshal(fields)
}
