// RUN: VERIFY_DIAG

func.func @two_anchors(%x: tensor<1x4x4x4x!qnn.int<8, 0.1, 0>>) {
  // CHECK: anchors qnn.max_pool2d, qnn.max_pool2d: a kernel has one
  %0 = kern.kernel "k" (%a = %x) : (tensor<1x4x4x4x!qnn.int<8, 0.1, 0>>) -> tensor<1x4x2x2x!qnn.int<8, 0.1, 0>> {
    %1 = qnn.max_pool2d %a kernel <2, 2> : tensor<1x4x4x4x!qnn.int<8, 0.1, 0>> -> tensor<1x4x3x3x!qnn.int<8, 0.1, 0>>
    %2 = qnn.max_pool2d %1 kernel <2, 2> : tensor<1x4x3x3x!qnn.int<8, 0.1, 0>> -> tensor<1x4x2x2x!qnn.int<8, 0.1, 0>>
    kern.yield %2 : tensor<1x4x2x2x!qnn.int<8, 0.1, 0>>
  }
  func.return
}

// -----

func.func @anchor_behind_chain(%x: tensor<1x4x4x4xf32>) {
  // CHECK: qnn.max_pool2d must take the kernel's operands
  %0 = kern.kernel "k" (%a = %x) : (tensor<1x4x4x4xf32>) -> tensor<1x4x3x3x!qnn.int<8, 0.1, 0>> {
    %1 = qnn.quantize %a : tensor<1x4x4x4xf32> -> tensor<1x4x4x4x!qnn.int<8, 0.1, 0>>
    %2 = qnn.max_pool2d %1 kernel <2, 2> : tensor<1x4x4x4x!qnn.int<8, 0.1, 0>> -> tensor<1x4x3x3x!qnn.int<8, 0.1, 0>>
    kern.yield %2 : tensor<1x4x3x3x!qnn.int<8, 0.1, 0>>
  }
  func.return
}

// -----

func.func @constant_inside() {
  // CHECK: qnn.constant cannot be in a kernel
  %0 = kern.kernel "k" () : () -> tensor<1xf32> {
    %1 = qnn.constant dense<1.0> : tensor<1xf32> : tensor<1xf32>
    kern.yield %1 : tensor<1xf32>
  }
  func.return
}

// -----

func.func @kernel_moves_nothing(%x: tensor<2x3xf32>) {
  // CHECK: moves nothing; use kern.view
  %0 = kern.kernel "k" (%a = %x) : (tensor<2x3xf32>) -> tensor<6xf32> {
    %1 = qnn.reshape %a : tensor<2x3xf32> -> tensor<6xf32>
    kern.yield %1 : tensor<6xf32>
  }
  func.return
}

// -----

func.func @view_moves(%x: tensor<2x6xf32>) {
  // CHECK: neither side is a strided alias of the other; use kern.kernel
  %0 = kern.view "k" (%a = %x) : (tensor<2x6xf32>) -> tensor<4x3xf32> {
    %1 = qnn.reshape %a : tensor<2x6xf32> -> tensor<2x2x3xf32>
    %2 = qnn.permute %1 order <1, 0, 2> : tensor<2x2x3xf32> -> tensor<2x2x3xf32>
    %3 = qnn.reshape %2 : tensor<2x2x3xf32> -> tensor<4x3xf32>
    kern.yield %3 : tensor<4x3xf32>
  }
  func.return
}

// -----

func.func @result_type(%x: tensor<2xf32>) {
  // CHECK: yields tensor<2xf32>, but its result is tensor<3xf32>
  %0 = kern.kernel "k" (%a = %x) : (tensor<2xf32>) -> tensor<3xf32> {
    %1 = qnn.relu %a : tensor<2xf32>
    kern.yield %1 : tensor<2xf32>
  }
  func.return
}

// -----

func.func @operand_types(%x: tensor<2xf32>) {
  // CHECK: 1 operands and one result expected
  %0 = kern.kernel "k" (%a = %x) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32> {
    kern.yield %a : tensor<2xf32>
  }
  func.return
}

// -----

func.func @joined(%x: tensor<1x3xf32>) {
  // CHECK: result must be tensor<1x6xf32>, got tensor<1x7xf32>
  %0 = kern.concat "cat" %x, %x axis 1 : (tensor<1x3xf32>, tensor<1x3xf32>) -> tensor<1x7xf32>
  func.return
}
