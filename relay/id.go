package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/webfabric/weft/relay/store"
	"github.com/webfabric/weft/shared/identity"
)

func idCommand() *cobra.Command {
	var data string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "id",
		Short: "Print this user's publisher key, making it if there is none",
		Long: `Print the peer ID of the key with which this user publishes, making the key if
there is none. A relay keeps what a key publishes if it runs with
--allow-publisher and that ID, or as the same user on the same machine.`,
		Example: `  weft id
  ssh vps weft relay --allow-publisher "$(weft id)"`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := roleDir(data, "publisher")
			if err != nil {
				return err
			}
			key, err := store.Key(dir)
			if err != nil {
				return err
			}
			id, err := identity.ID(key)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{"id": id.String()})
			}
			fmt.Fprintln(cmd.OutOrStdout(), id)
			return nil
		},
	}
	dataFlag(cmd, &data, "publisher")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func dataFlag(cmd *cobra.Command, data *string, role string) {
	cmd.Flags().StringVar(data, "data", "", "`directory` of the key and the store (default $WEFT_HOME/"+role+")")
}

func relayFlag(cmd *cobra.Command, relay *string) {
	cmd.Flags().StringVar(relay, "relay", "", "`URL` of the relay (default: the one running on this machine)")
}

func jsonFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print the result as JSON")
}
