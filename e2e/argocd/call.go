package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/argoproj/argo-cd/v3/reposerver/apiclient"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// largest is Argo CD's own limit of a message.
const largest = 100 << 20

// call is what Argo CD's controller and API server do: they have no other way to a plugin than these calls.
func call() *cobra.Command {
	return &cobra.Command{
		Use:  "call ADDRESS METHOD [TIMEOUT]",
		Args: cobra.RangeArgs(2, 3),
		RunE: func(command *cobra.Command, args []string) error {
			timeout := time.Minute
			if len(args) == 3 {
				var err error
				if timeout, err = time.ParseDuration(args[2]); err != nil {
					return err
				}
			}
			request, err := io.ReadAll(os.Stdin)
			if err != nil {
				return err
			}
			connection, err := grpc.NewClient(args[0],
				grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largest), grpc.MaxCallSendMsgSize(largest)))
			if err != nil {
				return err
			}
			defer connection.Close()
			ctx, cancel := context.WithTimeout(command.Context(), timeout)
			defer cancel()
			answer, err := ask(ctx, apiclient.NewRepoServerServiceClient(connection), args[1], request)
			if refused, ok := status.FromError(err); err != nil && ok {
				return fmt.Errorf("%s: %s", refused.Code(), refused.Message())
			} else if err != nil {
				return err
			}
			return json.NewEncoder(os.Stdout).Encode(answer)
		},
	}
}

func ask(ctx context.Context, client apiclient.RepoServerServiceClient, method string, request []byte) (any, error) {
	switch method {
	case "GenerateManifest":
		return asked(ctx, client.GenerateManifest, request)
	case "GetAppDetails":
		return asked(ctx, client.GetAppDetails, request)
	case "ListPlugins":
		return client.ListPlugins(ctx, &emptypb.Empty{})
	default:
		return nil, fmt.Errorf("there is no method %s here", method)
	}
}

func asked[Request, Answer any](
	ctx context.Context,
	method func(context.Context, *Request, ...grpc.CallOption) (*Answer, error),
	request []byte,
) (*Answer, error) {
	var message Request
	if err := json.Unmarshal(request, &message); err != nil {
		return nil, err
	}
	return method(ctx, &message)
}
