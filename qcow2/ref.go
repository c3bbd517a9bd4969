package qcow2

// decodeRefs finds the files that the header names: sections "Header", "String
// header extensions".
func (img *Image) decodeRefs(first []byte) {
	h := &img.header
	if h.BackingFileOffset != 0 && h.BackingFileSize != 0 {
		end := min(int(h.BackingFileOffset)+int(h.BackingFileSize), len(first))
		img.backingRef = &Ref{Kind: RefBacking, Name: string(first[min(int(h.BackingFileOffset), end):end])}
		if e := findExtension(img.extensions, ExtBackingFormat); e != nil {
			img.backingRef.Format = string(e.Data)
		}
	}
	if h.IncompatibleFeatures&IncompatDataFile != 0 {
		img.dataFile = &Ref{Kind: RefData, Format: "raw", Raw: h.AutoclearFeatures&AutoclearRawData != 0}
		if e := findExtension(img.extensions, ExtDataFile); e != nil {
			img.dataFile.Name = string(e.Data)
		}
	}
}

// openRefs opens what OpenRef is willing to open.
func (img *Image) openRefs(open func(Ref) (Disk, error)) error {
	img.storage, img.storageSize = img.r, img.size
	if img.dataFile != nil {
		img.storage, img.storageSize = nil, 0
	}
	if open == nil {
		return nil
	}
	if img.backingRef != nil {
		d, err := open(*img.backingRef)
		if err != nil {
			return err
		}
		img.backing = d
	}
	if img.dataFile != nil {
		d, err := open(*img.dataFile)
		if err != nil || d == nil {
			return err
		}
		img.storage, img.storageSize = d, d.Size()
	}
	return nil
}

// Backing is the backing file that the header names, or nil.
func (img *Image) Backing() *Ref { return img.backingRef }

// BackingDisk is what Options.OpenRef gave for the backing file, or nil.
func (img *Image) BackingDisk() Disk { return img.backing }

// DataFile is the external data file that the image needs, or nil. Its Name is
// empty where the header does not say it.
func (img *Image) DataFile() *Ref { return img.dataFile }

func (img *Image) unopenedBacking() *Ref {
	if img.backing == nil {
		return img.backingRef
	}
	return nil
}

// Unopened is the backing file, of this image or of one below it, that is named
// and was not opened; nil if there is none. While there is one, Absent ranges
// belong to it, and reading them is an error.
func (img *Image) Unopened() *Ref {
	if ref := img.unopenedBacking(); ref != nil {
		return ref
	}
	if below, ok := img.backing.(interface{ Unopened() *Ref }); ok {
		return below.Unopened()
	}
	return nil
}
