// Command grpcgo calls a plugin as Argo CD's repo-server does: grpc-go's own dialling of a unix socket's path, hence
// its spelling of the authority, the calls in their order, and the repository in chunks of 1 KiB.
//
//	grpcgo -socket FILE -dir FOLDER -app PATH [-timeout 60s] [-authority TEXT] [-calls 1] [-times] [-at-once 1] [NAME=VALUE ...]
//
// The manifests go to stdout. An error is one line, `CODE: message`, on stderr. As Argo CD does, each of the calls at
// once has a connection of its own. `{number}` in PATH and in a VALUE is the number of the call, so that each can
// be for another app. With -times the time of each call in microseconds, a line each, goes to stdout in place of the manifests, and at
// last that of all together.
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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
func metadata(app, sum string, archive []byte, env []string) []byte {
	m := field(nil, 1, []byte(path.Base(app)))
	m = field(m, 2, []byte(app))
	m = field(m, 3, []byte(sum))
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
	calls := flag.Int("calls", 1, "how often to render")
	atOnce := flag.Int("at-once", 1, "how many calls at once, each on a connection of its own")
	times := flag.Bool("times", false, "print the times of the calls")
	flag.Parse()

	archive, err := pack(*folder)
	if err != nil {
		return err
	}
	var options []grpc.DialOption
	if *authority != "" {
		options = append(options, grpc.WithAuthority(*authority))
	}
	sum := sha256.Sum256(archive)
	checksum := hex.EncodeToString(sum[:])
	var next atomic.Int64
	var printing sync.Mutex
	// caller makes calls until there are no more to be made.
	caller := func() error {
		connection, err := dial(*socket, options...)
		if err != nil {
			return err
		}
		defer connection.Close()
		var configuration []byte
		if err := connection.Invoke(context.Background(), service+"CheckPluginConfiguration", []byte{}, &configuration); err != nil {
			return err
		}
		for {
			number := next.Add(1) - 1
			if number >= int64(*calls) {
				return nil
			}
			numbered := strings.NewReplacer("{number}", strconv.FormatInt(number, 10))
			env := make([]string, 0, flag.NArg())
			for _, entry := range flag.Args() {
				env = append(env, numbered.Replace(entry))
			}
			head := metadata(numbered.Replace(*app), checksum, archive, env)
			begun := time.Now()
			answer, err := generate(connection, *timeout, head, archive)
			if err != nil {
				return err
			}
			took := time.Since(begun)
			printing.Lock()
			if *times {
				fmt.Println(took.Microseconds())
			} else {
				err = print(answer)
			}
			printing.Unlock()
			if err != nil {
				return err
			}
		}
	}
	begun := time.Now()
	ended := make(chan error)
	for range *atOnce {
		go func() { ended <- caller() }()
	}
	for range *atOnce {
		if failed := <-ended; err == nil {
			err = failed
		}
	}
	if *times && err == nil {
		fmt.Println(time.Since(begun).Microseconds())
	}
	return err
}

// generate is one call for manifests, with a deadline.
func generate(connection *grpc.ClientConn, timeout time.Duration, head, archive []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return send(ctx, connection, "GenerateManifest", head, archive)
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
