// A native range input: a role, a name and the arrow keys come with it. The server's value is shown whenever the user
// does not move it; an answer to an earlier move must not pull it back.
const QUIET_MS = 400;

export default {
  template: `<input type="range" @input="slid">`,
  props: { value: Number },
  mounted() {
    this.show();
  },
  unmounted() {
    clearTimeout(this.timer);
  },
  watch: {
    value() {
      if (!this.moving) this.show();
    },
  },
  methods: {
    show() {
      this.$el.value = this.value;
      this.fill();
    },
    fill() {
      const { value, min, max } = this.$el;
      this.$el.style.setProperty("--at", `${(100 * (value - min)) / (max - min)}%`);
    },
    slid() {
      this.fill();
      this.moving = true;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => {
        this.moving = false;
        this.show();
      }, QUIET_MS);
      this.$emit("slide", Number(this.$el.value));
    },
  },
};
