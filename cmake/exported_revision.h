#define QUIPU_REVISION "$Format:%h$"
