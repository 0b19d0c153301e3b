// Command grpcgo calls a plugin as Argo CD's repo-server does: grpc-go's own dialling of a unix socket's path, hence
// its spelling of the authority, the calls in their order, and the repository in chunks of 1 KiB.
//
//	grpcgo -socket FILE -dir FOLDER -app PATH [-timeout 60s] [-authority TEXT] [-calls 1] [NAME=VALUE ...]
//
// The manifests go to stdout. An error is one line, `CODE: message`, on stderr.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

const service = "/plugin.ConfigManagementPluginService/"

// raw passes messages that this program has put together itself, so that it needs no generated code.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}

func field(message []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(message, number, protowire.BytesType), value)
}

// metadata is an AppStreamRequest with a ManifestRequestMetadata.
func metadata(app string, archive []byte, env []string) []byte {
	sum := sha256.Sum256(archive)
	m := field(nil, 1, []byte(path.Base(app)))
	m = field(m, 2, []byte(app))
	m = field(m, 3, []byte(hex.EncodeToString(sum[:])))
	m = protowire.AppendVarint(protowire.AppendTag(m, 4, protowire.VarintType), uint64(len(archive)))
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		m = field(m, 5, field(field(nil, 1, []byte(name)), 2, []byte(value)))
	}
	return field(nil, 1, m)
}

// pack makes the archive of a folder, as the repo-server walks it.
func pack(folder string) ([]byte, error) {
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	archive := tar.NewWriter(zip)
	err := filepath.Walk(folder, func(name string, info fs.FileInfo, err error) error {
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&os.ModeSymlink != 0 {
			if link, err = os.Readlink(name); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		if header.Name, err = filepath.Rel(folder, name); err != nil {
			return err
		}
		if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		_, err = archive.Write(content)
		return err
	})
	err = errors.Join(err, archive.Close(), zip.Close())
	return out.Bytes(), err
}

// dial connects as util/grpc of Argo CD does: the path behind the passthrough resolver, and a dialler that has
// connected before grpc asks.
func dial(socket string, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	connection, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	dialer := func(context.Context, string) (net.Conn, error) { return connection, nil }
	options := append(more,
		grpc.WithContextDialer(dialer),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(100<<20), grpc.MaxCallSendMsgSize(100<<20)),
	)
	return grpc.NewClient("passthrough:"+socket, options...)
}

// send streams the repository as util/cmp of Argo CD does. A stream that the server ended early is an error of its
// own, and the server's answer is lost.
func send(ctx context.Context, connection *grpc.ClientConn, method string, head, archive []byte) ([]byte, error) {
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, service+method)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(head); err != nil {
		return nil, fmt.Errorf("send metadata: %w", err)
	}
	for chunk := make([]byte, 1024); len(archive) > 0; archive = archive[len(chunk):] {
		chunk = chunk[:min(len(chunk), len(archive))]
		copy(chunk, archive)
		if err := stream.SendMsg(field(nil, 2, field(nil, 1, chunk))); err != nil {
			return nil, fmt.Errorf("send chunk: %w", err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	var answer []byte
	return answer, stream.RecvMsg(&answer)
}

func run() error {
	socket := flag.String("socket", "", "the plugin's socket")
	authority := flag.String("authority", "", "authority instead of grpc-go's own; before 1.57 it was the bare path")
	folder := flag.String("dir", "", "the repository")
	app := flag.String("app", ".", "the app's path in it")
	timeout := flag.Duration("timeout", time.Minute, "deadline of a call")
	calls := flag.Int("calls", 1, "how often to render on the same connection")
	flag.Parse()

	archive, err := pack(*folder)
	if err != nil {
		return err
	}
	var options []grpc.DialOption
	if *authority != "" {
		options = append(options, grpc.WithAuthority(*authority))
	}
	connection, err := dial(*socket, options...)
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	var configuration []byte
	if err := connection.Invoke(ctx, service+"CheckPluginConfiguration", []byte{}, &configuration); err != nil {
		return err
	}
	head := metadata(*app, archive, flag.Args())
	for range *calls {
		answer, err := send(ctx, connection, "GenerateManifest", head, archive)
		if err != nil {
			return err
		}
		if err := print(answer); err != nil {
			return err
		}
	}
	return nil
}

// print writes the manifests of a ManifestResponse.
func print(answer []byte) error {
	for len(answer) > 0 {
		number, kind, length := protowire.ConsumeTag(answer)
		if length < 0 {
			return protowire.ParseError(length)
		}
		answer = answer[length:]
		if number == 1 && kind == protowire.BytesType {
			manifests, length := protowire.ConsumeBytes(answer)
			if length < 0 {
				return protowire.ParseError(length)
			}
			if _, err := os.Stdout.Write(manifests); err != nil {
				return err
			}
			answer = answer[length:]
			continue
		}
		length = protowire.ConsumeFieldValue(number, kind, answer)
		if length < 0 {
			return protowire.ParseError(length)
		}
		answer = answer[length:]
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		if refused, ok := status.FromError(err); ok && !errors.Is(err, io.EOF) {
			fmt.Fprintf(os.Stderr, "%s: %s\n", refused.Code(), refused.Message())
		} else {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
}
