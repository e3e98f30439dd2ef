// Browsers start no Worker from a file:// address, where the search would need one. There, and
// only there, this runs the worker's script in a hidden frame instead.
class IFrameWorker extends EventTarget {
  constructor(url) {
    super()
    this.frame = document.createElement("iframe")
    this.frame.hidden = true
    document.body.appendChild(this.frame)
    this.receive = event => {
      if (event.source !== this.frame.contentWindow) return
      const message = new MessageEvent("message", {data: event.data})
      this.dispatchEvent(message)
      if (this.onmessage) this.onmessage(message)
    }
    window.addEventListener("message", this.receive)
    const inner = this.frame.contentDocument
    inner.open()
    inner.write(
      "<!doctype html><html><body><script>" +
        "postMessage = data => parent.postMessage(data, '*');" +
        "importScripts = (...urls) => urls.reduce((before, url) => before.then(() =>" +
        "  new Promise((resolve, reject) => {" +
        "    const script = document.createElement('script');" +
        "    script.src = url; script.onload = resolve; script.onerror = reject;" +
        "    document.body.appendChild(script) })), Promise.resolve())" +
        "<\/script></body></html>"
    )
    inner.close()
    this.ready = new Promise((resolve, reject) => {
      const script = inner.createElement("script")
      script.src = url
      script.onload = resolve
      script.onerror = reject
      inner.body.appendChild(script)
    })
  }

  postMessage(data) {
    this.ready.then(() =>
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", {data}))
    )
  }

  terminate() {
    window.removeEventListener("message", this.receive)
    this.frame.remove()
  }
}

if (location.protocol === "file:") {
  window.IFrameWorker = IFrameWorker
  window.Worker = IFrameWorker
}
