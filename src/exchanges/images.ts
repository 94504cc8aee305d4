import type { Host } from './exchange.ts'

/** A book that has no image of its own yet: what was asked for, and the frames that came meanwhile. Plain data. */
export interface ImageState {
  /** The request under way; null: none. */
  id: string | null
  askedUs: number
  /** When to ask (again), µs; null: not to be asked. */
  dueUs: number | null
  tries: number
  /** When the last image was complete, µs. */
  doneUs: number
  backlog: string[]
  chars: number
}

/** All images of a connection as plain data. */
export interface ImagesState {
  requests: number
  list: ImageState[]
}

/** What may differ from one exchange to another. */
export interface ImagesOptions {
  /** So many images are asked for at once, the others wait for their turn; for answers that cost much of a budget. */
  readonly atOnceMax?: number
  /** How long an answer may take, ms; a request may have to wait for room in its budget. */
  readonly answerMsMax?: number
  /** So many frames wait with an image that is not asked for yet: it will be newer than the older ones. */
  readonly idleFramesMax?: number
}

const BACKLOG_FRAMES_MAX = 20_000
const BACKLOG_CHARS_MAX = 16 * 1024 * 1024
/** Of all books of a connection together: what waits is written to the state line of an hour. */
const CONNECTION_CHARS_MAX = 32 * 1024 * 1024
const IDLE_FRAMES_MAX = 1000
const ANSWER_MS_MAX = 30_000
const STEADY_US = 60_000_000
const RETRY_US_MIN = 500_000
const RETRY_US_MAX = 60_000_000

/**
 * Books whose image must be asked for (over REST, or by a request on the connection), while the frames of their
 * subscription wait. When to ask, and again, is decided here; how an image and the waiting frames fit together is the
 * exchange's.
 */
export class Images {
  private state_: ImagesState
  private readonly host: Host
  private readonly ask: (index: number, id: string) => void
  private readonly options: Required<ImagesOptions>
  /** What waits, of all books. */
  private chars = 0

  /** `ask` requests the image of an instrument; the answer must bear the id. */
  constructor(host: Host, ask: (index: number, id: string) => void, options: ImagesOptions = {}) {
    this.host = host
    this.ask = ask
    this.options = {
      atOnceMax: Number.POSITIVE_INFINITY,
      answerMsMax: ANSWER_MS_MAX,
      idleFramesMax: IDLE_FRAMES_MAX,
      ...options
    }
    this.state_ = {
      requests: 0,
      list: host.keepers.map(() => ({
        id: null,
        askedUs: 0,
        dueUs: null,
        tries: 0,
        doneUs: 0,
        backlog: [],
        chars: 0
      }))
    }
  }

  /** Plain data of it; the session keeps it in its own state. */
  get state(): ImagesState {
    return this.state_
  }

  set state(state: ImagesState) {
    this.state_ = state
    this.chars = state.list.reduce((sum, { chars }) => sum + chars, 0)
  }

  /** Asks for the first image of a subscription, unless it is under way. */
  want(index: number): void {
    const image = this.state_.list[index]!
    if (image.id === null && image.dueUs === null) this.request(image, index)
  }

  /** The book was lost: asks for another image, later the sooner it was lost again. */
  renew(index: number, reason: string): void {
    const image = this.state_.list[index]!
    if (image.id !== null || image.dueUs !== null) return
    const keeper = this.host.keepers[index]!
    if (this.host.us - image.doneUs > STEADY_US) image.tries = 0
    const attempt = image.tries + 1
    this.host.log('warn', 'Forced resubscribe', { instId: keeper.instrument.instId, reason, attempt })
    keeper.status('resubscribed', { reason, attempt })
    if (image.tries === 0) this.request(image, index)
    else this.again(index)
  }

  /** The image did not come, or does not fit: asks for another after a while. */
  again(index: number): void {
    const image = this.state_.list[index]!
    image.id = null
    image.dueUs = this.host.us + Math.min(RETRY_US_MAX, RETRY_US_MIN * 2 ** Math.max(0, image.tries - 1))
  }

  private request(image: ImageState, index: number): void {
    if (this.state_.list.filter(({ id }) => id !== null).length >= this.options.atOnceMax) {
      // Due, and asked for at the first tick that finds room.
      image.dueUs = this.host.us
      return
    }
    image.id = `image-${index}-${++this.state_.requests}`
    image.askedUs = this.host.us
    image.dueUs = null
    image.tries++
    this.ask(index, image.id)
  }

  /** The instrument whose image an answer is; undefined when nobody waits for it any more. */
  answered(id: string): number | undefined {
    const index = this.state_.list.findIndex(image => image.id === id)
    if (index < 0) return undefined
    this.state_.list[index]!.id = null
    return index
  }

  /** A frame of a book without an image. Of too many the oldest go: the image must then be newer than what is left. */
  hold(index: number, text: string): void {
    const image = this.state_.list[index]!
    image.backlog.push(text)
    image.chars += text.length
    const framesMax = image.id === null ? this.options.idleFramesMax : BACKLOG_FRAMES_MAX
    this.chars += text.length
    if (image.backlog.length > framesMax || image.chars > BACKLOG_CHARS_MAX) this.halve(image)
    while (this.chars > CONNECTION_CHARS_MAX) this.halve(this.largest())
  }

  private largest(): ImageState {
    return this.state_.list.reduce((a, b) => (b.chars > a.chars ? b : a))
  }

  /** The older half goes. */
  private halve(image: ImageState): void {
    for (const frame of image.backlog.splice(0, Math.ceil(image.backlog.length / 2))) {
      image.chars -= frame.length
      this.chars -= frame.length
    }
  }

  /** The frames that wait for the image, oldest first. */
  backlog(index: number): readonly string[] {
    return this.state_.list[index]!.backlog
  }

  /** The image is in the book, and what waited for it is applied. */
  done(index: number): void {
    const image = this.state_.list[index]!
    image.dueUs = null
    image.doneUs = this.host.us
    this.forget(index)
  }

  /** The subscription was left: neither the waiting frames nor an image under way are of use. */
  reset(index: number): void {
    const image = this.state_.list[index]!
    image.id = image.dueUs = null
    this.forget(index)
  }

  private forget(index: number): void {
    const image = this.state_.list[index]!
    this.chars -= image.chars
    image.backlog = []
    image.chars = 0
  }

  /** Time passes: asks for what is due, and again for what was not answered. */
  tick(): void {
    for (const [index, image] of this.state_.list.entries()) {
      if (image.dueUs !== null && this.host.us >= image.dueUs) this.request(image, index)
      else if (image.id !== null && this.host.us - image.askedUs > this.options.answerMsMax * 1000) {
        this.again(index)
      }
    }
  }
}
