package reconstruct

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// ResumeRaw makes a new sparse raw file of size bytes as a target that can be
// resumed, or goes on with one. Until it is whole it is hidden in the same folder as
// .NAME.qbit-resume.partial, with the journal .NAME.qbit-resume.journal; both have
// fixed names, so the folder should be one in which only friends write.
//
// job says what the content depends on beside size. If an earlier run had another
// one, that is a *ResumeError; ErrResumeBusy, if another run has the files now. A
// result that is there already is one to go on with too, if the journal says that it
// is whole; then nothing is written, and what differs is an error. opts may be nil.
func ResumeRaw(ctx context.Context, path string, size int64, job []ResumeFact, opts *OutputOptions) (*ResumeTarget, error) {
	out := newOutput(path, opts)
	if filepath.Base(path) == "." || strings.HasSuffix(path, string(filepath.Separator)) {
		return nil, out.nameless()
	}
	r := &rawResumption{out: out, temp: resumeName(path, "partial")}
	r.journalFile = journalFile{path: resumeName(path, "journal"), partial: r.temp, inputs: out.opts.Inputs}
	t, err := r.open(ctx, ResumeHeader{Size: size, Job: cleanJob(job)})
	if err != nil {
		return nil, errors.Join(err, r.giveUp())
	}
	return t, nil
}

// resumeName is the name of a hidden file beside path. That of a long name has a
// hash in it, for it is cut.
func resumeName(path, kind string) string {
	folder, name := filepath.Split(path)
	const longest = 200 // of the 255 bytes that a name may have
	if len(name) > longest {
		name = fmt.Sprintf("%s-%016x", name[:longest], xxhash.Sum64String(name))
	}
	return filepath.Join(folder, "."+name+".qbit-resume."+kind)
}

// cleanJob makes the texts of a job such that a journal keeps them as they are.
func cleanJob(job []ResumeFact) []ResumeFact {
	job = slices.Clone(job)
	for i := range job {
		job[i].What, job[i].Is = strings.ToValidUTF8(job[i].What, "\uFFFD"), strings.ToValidUTF8(job[i].Is, "\uFFFD")
	}
	return job
}

// A rawResumption is a new raw file and its journal. It is a resumeEnd.
type rawResumption struct {
	journalFile
	out   *Output
	temp  string
	whole *os.File // the result, if it has got its name already
}

func (r *rawResumption) open(ctx context.Context, want ResumeHeader) (*ResumeTarget, error) {
	there, err := exists(r.temp)
	if err != nil {
		return nil, err
	}
	// Whatever is wrong with the result's name, nothing may be made for it.
	if known, err := exists(r.path); err != nil || !known {
		if err := errors.Join(err, r.out.checkOld()); err != nil {
			return nil, err
		}
	}
	if err := r.begin(want, !there); err != nil {
		return nil, err
	}
	if r.journal.Whole && !there {
		if t, err := r.openWhole(); t != nil || err != nil {
			return t, err
		}
	}
	if err := r.out.checkOld(); err != nil {
		return nil, err
	}
	return r.openPartial(ctx, there)
}

// openPartial makes the hidden file, or opens that of an earlier run.
func (r *rawResumption) openPartial(ctx context.Context, there bool) (*ResumeTarget, error) {
	if there && r.fresh { // nothing tells what it is
		if err := os.Remove(r.temp); err != nil {
			return nil, err
		}
	}
	if !there {
		r.journal.empty()
	}
	if err := r.out.reopen(r.temp, r.journal.Header.Mode); err != nil {
		return nil, err
	}
	if err := freshen(r.out.f); err != nil {
		return nil, err
	}
	data := resumeFile{File: r.out.Storage(), os: r.out.f}
	if err := data.cut(ctx, r.journal.Sums, r.journal.Header.Size); err != nil {
		return nil, err
	}
	return r.target(data, r)
}

// openWhole opens the result that an earlier run finished; nil: there is none.
func (r *rawResumption) openWhole() (*ResumeTarget, error) {
	info, err := os.Lstat(r.out.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() != r.journal.Header.Size || isOneOf(info, r.inputs) {
		return nil, &fs.PathError{Op: "open", Path: r.out.path, Err: errNotWhole}
	}
	if r.whole, err = os.OpenFile(r.out.path, os.O_RDONLY|openNoFollow|openNonblock, 0); err != nil {
		return nil, err
	}
	if err := freshen(r.whole); err != nil {
		return nil, err
	}
	return &ResumeTarget{data: resumeWhole{r.whole}, end: r, sums: r.journal.Sums}, nil
}

func (r *rawResumption) commit() error {
	if r.whole != nil {
		return r.whole.Close()
	}
	return r.out.Commit()
}

func (r *rawResumption) leave() error {
	err := r.out.Abort()
	if r.whole != nil {
		r.whole.Close()
	}
	return errors.Join(err, r.close())
}

func (r *rawResumption) forget() error {
	err := r.remove()
	if r.whole != nil || r.out.temp == "" {
		return err
	}
	if gone := os.Remove(r.temp); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// giveUp tidies up where nothing came of it.
func (r *rawResumption) giveUp() error {
	err := r.leave()
	if !r.fresh {
		return err
	}
	return errors.Join(err, r.forget())
}

// ResumeOnto makes a target that can be resumed of a device or file that is written
// over, from where the journal ends. The journal is a file that the caller names; it
// may not be one of inputs. onto belongs to the new target; if there is an error, to
// the caller. job and errors are those of ResumeRaw.
func ResumeOnto(journal string, onto *OntoTarget, job []ResumeFact, inputs []fs.FileInfo) (*ResumeTarget, error) {
	r := &ontoResumption{onto: onto}
	info, err := onto.f.Stat()
	if err != nil {
		return nil, err
	}
	r.journalFile = journalFile{path: journal, inputs: append(slices.Clone(inputs), info)}
	if err := r.begin(ResumeHeader{Size: onto.size - onto.beyond, Job: cleanJob(job)}, false); err != nil {
		return nil, errors.Join(err, r.giveUp())
	}
	if err := freshen(onto.f.File); err != nil {
		return nil, errors.Join(err, r.giveUp())
	}
	return r.target(resumeOnto{onto}, r)
}

// An ontoResumption is a device and its journal. It is a resumeEnd.
type ontoResumption struct {
	journalFile
	onto *OntoTarget
}

func (r *ontoResumption) commit() error { return r.onto.Commit() }
func (r *ontoResumption) leave() error  { return errors.Join(r.onto.Abort(), r.close()) }
func (r *ontoResumption) forget() error { return r.remove() }

func (r *ontoResumption) giveUp() error {
	if r.fresh {
		return r.remove()
	}
	return r.close()
}

// freshen has the system forget what it holds of a file. First that is stored, for
// an error of an earlier run may not have been told yet: what the system then still
// shows need not be what is stored.
func freshen(f *os.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	dropCache(f)
	return nil
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
